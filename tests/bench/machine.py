# SPDX-License-Identifier: MIT
"""What measurements share: what processes cost, the service (nginx), and the machine's name."""
import os
import platform
import pwd
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
TICK = os.sysconf("SC_CLK_TCK")


def tree(pids):
    """The processes and all below them."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(rest[1]), []).append(pid)
    found, waiting = [], list(pids)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(pids):
    """User and system time of the processes and all below them, in steps of a scheduler tick."""
    total = 0
    for pid in tree(pids):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / TICK


def private_kib(pids):
    """Memory that nobody else shares: the figure that does not fall when others start."""
    total = 0
    for pid in tree(pids):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(kib) for kib in re.findall(r"^Private_\w+:\s+(\d+)", text, re.M))
    return total


def user():
    return pwd.getpwuid(os.getuid()).pw_name


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def start_nginx(world, files):
    """One worker that serves `files`, name → bytes of content (or how many zeros); its port."""
    from culvert import free_port, wait_for
    www = world.folder / "www"
    www.mkdir()
    for name, content in files.items():
        with open(www / name, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                file.truncate(content)
    port = free_port()
    temps = "\n".join(f"{name}_temp_path {world.folder}/{name};"
                      for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = world.write("nginx.conf", f"""
daemon off; worker_processes 1; pid {world.folder}/nginx.pid; user {user()};
error_log {world.folder}/nginx.err; worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{ access_log off; sendfile on; root {www}; keepalive_requests 100000000; {temps}
        server {{ listen 127.0.0.1:{port} backlog=1024; }} }}
""")
    world.spawn("/usr/sbin/nginx", "-e", world.folder / "nginx.err", "-c", config)
    wait_for(lambda: is_open(port), what="nginx")
    return port


def describe():
    """Processors, kernel, the peers' versions, the revision measured, the day."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    revision = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                              capture_output=True).stdout.strip()
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr.split(",")[0]
    return (f"{os.cpu_count()} × {model.group(1) if model else platform.machine()}, "
            f"Linux {platform.release()}, {ssh}, culvert {revision}, "
            f"{time.strftime('%Y-%m-%d', time.gmtime())}")
