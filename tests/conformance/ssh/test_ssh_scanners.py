# SPDX-License-Identifier: MIT
"""ssh-audit on what we offer, as server (alone, and the relay behind `culvert stdio`) and as client.

It has two false alarms for us, and no finding:
- `kex-strict-s-v00@openssh.com`, the mark of strict key exchange (CVE-2023-48795), is no algorithm;
  versions before 3.1 do not know it.
- `hmac-sha2-256` is offered because some clients (dropbear) refuse a list without a MAC that they
  know, and is never used: each of our ciphers authenticates by itself.
"""
import contextlib
import re
import shutil
import socket
import subprocess
import threading

import pytest
from culvert import free_port
from ssh_programs import PEER, Alone, Program

pytestmark = pytest.mark.skipif(not shutil.which("ssh-audit"),
                                reason="ssh-audit is not there: tools/deps test")

FALSE_ALARMS = {
    ("kex", "kex-strict-s-v00@openssh.com"), ("kex", "kex-strict-c-v00@openssh.com"),
    ("mac", "hmac-sha2-256"),
}


def alarms(output):
    """(kind, algorithm) of each line that has a warning or failure, without its follow-ups."""
    found, last = set(), None
    for line in output.splitlines():
        # "(mac) hmac-sha2-256   -- [warn] …", then "   `- [info] …"
        if named := re.match(r"\((\w+)\) (\S+)", line):
            last = named[1], named[2]
        if re.search(r"\[(warn|fail)\]", line):
            assert last, output
            found.add(last)
    return found


def audit(*words):
    done = subprocess.run(["ssh-audit", "-n", *map(str, words)], capture_output=True, text=True,
                          timeout=120)
    assert "curve25519-sha256" in done.stdout, done.stdout + done.stderr
    return done.stdout


def check(output):
    assert alarms(output) <= FALSE_ALARMS, output
    assert "CVE" not in output, output
    assert "ssh-ed25519" in output and "aes256-gcm@openssh.com" in output


def test_ssh_audit_finds_nothing_in_the_engine():
    server = Alone()
    try:
        check(audit("127.0.0.1", "-p", server.port))
    finally:
        server.close()


class Proxy:
    """A port whose connections each go through a `culvert stdio` of their own."""

    def __init__(self, world, relay):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.words = world.stdio_command(relay, quoted=False)
        self.env = world.env({"CULVERT_TOKEN": world.token("alice")})
        self.started = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection:
                    self.started.append(subprocess.Popen(self.words, stdin=connection,
                                                         stdout=connection, env=self.env,
                                                         stderr=subprocess.DEVNULL))

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)
        for process in self.started:
            process.terminate()
            process.wait(10)


def test_ssh_audit_finds_nothing_in_the_relay(world):
    proxy = Proxy(world, world.relay())
    world.cleanups.append(proxy.close)
    check(audit("127.0.0.1", "-p", proxy.port))


def test_ssh_audit_finds_nothing_in_the_client():
    port = free_port()
    auditor = subprocess.Popen(["ssh-audit", "-n", "-c", "-p", str(port), "-t", "60"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    clients = []
    try:
        for _ in range(200):
            # It says nothing when it is ready, and ends after the first client.
            clients.append(Program("client", "--connect", f"127.0.0.1:{port}", "--forward",
                                   "home:80"))
            with contextlib.suppress(subprocess.TimeoutExpired):
                clients[-1].process.wait(0.5)
                clients[-1].reader.join(10)
            if not clients[-1].find("Connection refused"):
                break
        output, _ = auditor.communicate(timeout=90)
    finally:
        auditor.kill()
        auditor.wait()
        for client in clients:
            client.close()
    check(output)


def test_the_reader_of_reports_sees_alarms():
    assert alarms("(kex) good  -- [info] fine\n(enc) 3des-cbc -- [fail] broken\n"
                  "                 `- [warn] old\n(mac) x -- [warn] y\n") == {
                      ("enc", "3des-cbc"), ("mac", "x")}
    assert PEER.exists()
