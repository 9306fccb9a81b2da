# SPDX-License-Identifier: MIT
"""nginx and haproxy in front of a relay: as HTTP proxies, ending TLS or not, or passing it through.

The settings are what their manuals say for WebSocket and for streamed answers, and nothing more.
"""
import contextlib
import os
import signal

from culvert import free_port, wait_for
from sshpeers import START_S, is_open

NGINX_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Front:
    """One running proxy on `port` that leads to `relay_port`."""

    def __init__(self, world, relay_port, cert=None, private=None, passes_tls=False, idle_s=60):
        self.world, self.relay_port = world, relay_port
        self.cert, self.private, self.passes_tls, self.idle_s = cert, private, passes_tls, idle_s
        self.port = free_port()
        self.config = world.write(f"{self.name}-{self.port}.conf", self.text())
        self.start()

    def start(self):
        self.process = self.world.spawn(*self.command())

        def look():
            assert self.process.poll() is None, self.process.log_path.read_text()
            return is_open(self.port)
        wait_for(look, START_S, self.name)

    def stop(self):
        """At once, with every connection through it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        wait_for(lambda: not is_open(self.port), 10, f"end of {self.name}")


class Nginx(Front):
    name = "nginx"

    def command(self):
        return ["/usr/sbin/nginx", "-e", self.world.folder / "nginx.err", "-c", self.config]

    def text(self):
        folder = self.world.folder
        top = f"daemon off; master_process off; worker_processes 1;\n" \
              f"pid {folder}/nginx-{self.port}.pid; error_log {folder}/nginx.err;\n"
        if self.passes_tls:
            return f"""load_module /usr/lib/nginx/modules/ngx_stream_module.so;
{top}events {{}}
stream {{
    server {{
        listen 127.0.0.1:{self.port};
        proxy_pass 127.0.0.1:{self.relay_port};
        proxy_timeout {self.idle_s}s;
    }}
}}
"""
        temporary = "\n".join(f"    {name}_temp_path {folder}/{name};" for name in NGINX_TEMPORARY)
        # 1.22 has no TLS 1.3 unless told, and our agent nothing below.
        tls = f"ssl_certificate {self.cert}; ssl_certificate_key {self.private};\n" \
              "        ssl_protocols TLSv1.3;" if self.cert else ""
        return f"""{top}events {{}}
http {{
    access_log off;
{temporary}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream relay {{ server 127.0.0.1:{self.relay_port}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{self.port} {"ssl" if self.cert else ""};
        {tls}
        client_max_body_size 0;
        location / {{
            proxy_pass http://relay;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout {self.idle_s}s;
            proxy_send_timeout {self.idle_s}s;
        }}
    }}
}}
"""


class Haproxy(Front):
    name = "haproxy"

    def command(self):
        return ["/usr/sbin/haproxy", "-db", "-q", "-f", self.config]

    def text(self):
        tls = ""
        if self.cert:
            both = self.world.folder / "haproxy.pem"
            both.write_text(self.cert.read_text() + self.private.read_text())
            tls = f"ssl crt {both}"
        http = "" if self.passes_tls else """
    option forwardfor
    http-request set-header X-Forwarded-Proto https if { ssl_fc }"""
        return f"""defaults
    mode {"tcp" if self.passes_tls else "http"}
    timeout connect 5s
    timeout client {self.idle_s}s
    timeout server {self.idle_s}s
    timeout tunnel {self.idle_s}s
frontend front
    bind 127.0.0.1:{self.port} {tls}{http}
    default_backend relay
backend relay
    server relay 127.0.0.1:{self.relay_port}
"""


FRONTS = {"nginx": Nginx, "haproxy": Haproxy}
