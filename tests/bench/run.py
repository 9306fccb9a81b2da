#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures culvert beside `ssh -R` (OpenSSH) and a direct connection, in one run on one machine.

    tests/bench/run.py --build FOLDER [--out FILE] [--seconds N] [--gib N] [--links N]

The service is nginx, the load is wrk and curl, everything on loopback. CPU is that of the tunnel's
own processes, both ends together, from /proc.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import cpu_seconds, describe, is_open, private_kib, start_nginx, user


class Route:
    """One way to the service: its base URL, a header for wrk and curl, the processes it costs."""

    def __init__(self, name, url, header, pids):
        self.name, self.url, self.header, self.pids = name, url, header, pids


def wrk(path, connections, seconds, close=False):
    words = ["wrk", "-t", "2", "-c", str(connections), "-d", f"{seconds}s", "--latency"]
    if path.header:
        words += ["-H", path.header]
    if close:
        words += ["-H", "Connection: close"]
    before = cpu_seconds(path.pids)
    text = subprocess.run([*words, f"{path.url}/small"], check=True, capture_output=True,
                          text=True).stdout
    cpu = cpu_seconds(path.pids) - before
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    # nginx closes first when asked to, which wrk may count as a read error; it is no failure.
    errors = int(failed.group(1)) if failed else 0
    if broken:
        errors += int(broken.group(1)) + int(broken.group(4))
    p99 = re.search(r"^\s+99%\s+(\S+)", text, re.M)
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
            "cpu": 1000 * cpu / max(requests, 1), "p99": p99.group(1) if p99 else "-",
            "errors": errors}


def bulk(path, gib):
    words = ["curl", "-sS", "-f", "-o", "/dev/null", "-w", "%{size_download}"]
    if path.header:
        words += ["-H", path.header]
    before, started = cpu_seconds(path.pids), time.monotonic()
    size = subprocess.run([*words, f"{path.url}/big"], check=True, capture_output=True,
                          text=True).stdout
    seconds = time.monotonic() - started
    assert int(size) == gib << 30, "the file came short"
    return {"rate": (gib << 30) / 1e6 / seconds, "cpu": (cpu_seconds(path.pids) - before) / gib}


class OpenSSH:
    """A private sshd, and clients that publish through it with -R."""

    def __init__(self, world):
        from culvert import free_port, wait_for
        self.world = world
        self.port = free_port()
        folder = world.folder / "ssh"
        folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name],
                           check=True)
        config = folder / "sshd_config"
        config.write_text(f"""
Port {self.port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
MaxStartups 200
""")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.daemon = world.spawn("/usr/sbin/sshd", "-D", "-f", config)
        self.folder = folder
        wait_for(lambda: is_open(self.port), what="sshd")

    def publish(self, target):
        from culvert import free_port, wait_for
        port = free_port()
        client = self.world.spawn(
            "/usr/bin/ssh", "-F", "none", "-N", "-T", "-i", self.folder / "user", "-p", self.port,
            "-o", f"UserKnownHostsFile={self.folder}/known", "-o",
            "StrictHostKeyChecking=accept-new", "-o", "Ciphers=aes256-gcm@openssh.com",
            "-R", f"127.0.0.1:{port}:127.0.0.1:{target}", f"{user()}@127.0.0.1")
        wait_for(lambda: is_open(port), what="forwarded port of ssh")
        return port, client


def idle_memory(world, ssh, service_port, links):
    """KiB for each idle link at the public end: relay, and sshd's processes for a connection."""
    from culvert import AGENT_READY
    relay = world.relay()  # a fresh one: memory that earlier work left free would hide the links
    world.http(relay, service_port, name="first", env={"LOG_LEVEL": "info"})
    time.sleep(1)
    before = private_kib([relay.pid])
    agents = [world.http(relay, service_port, name="idle", sub=f"user{n}", ready=False,
                         env={"LOG_LEVEL": "info"})
              for n in range(links)]
    for agent in agents:
        agent.wait_log(AGENT_READY, timeout=60)
    time.sleep(1)
    ours = (private_kib([relay.pid]) - before) / links
    for agent in agents:
        agent.stop()
    before = private_kib([ssh.daemon.pid])
    count = min(links, 10)
    for _ in range(count):
        ssh.publish(service_port)
    theirs = (private_kib([ssh.daemon.pid]) - before) / count
    return ours, theirs


def ratio(ours, other):
    return f"{ours / other:.2f}" if other else "–"


def report(rows, memory, arguments):
    lines = [
        "# Performance", "",
        "Made by `make bench`: culvert beside `ssh -R` and beside no tunnel at all, in one run, on "
        "one machine, over loopback. The service is nginx with one worker; requests are 128 bytes "
        f"from wrk with two threads for {arguments.seconds} s, bulk is {arguments.gib} GiB by curl. "
        "Generator, service and tunnel share the processors, so absolute figures are low and the "
        "ratios are what to look at. CPU is the tunnel's own, both ends together.", "",
        f"Machine: {describe()}.", "",
        "| measurement | culvert | `ssh -R` | direct | culvert / ssh | culvert / direct |",
        "|---|---:|---:|---:|---:|---:|"]
    for name, values, form in rows:
        ours, ssh, direct = (values.get(k) for k in ("culvert", "ssh", "direct"))
        cells = [form(v) if v is not None else "–" for v in (ours, ssh, direct)]
        ratios = [ratio(ours, other) if isinstance(ours, float) and other else "–"
                  for other in (ssh, direct)]
        lines.append(f"| {name} | " + " | ".join(cells + ratios) + " |")
    ours, theirs = memory
    lines.append(f"| memory for an idle link at the public end, KiB | {ours:.0f} | {theirs:.0f} | – "
                 f"| {ratio(ours, theirs)} | – |")
    lines += ["", "What the comparison leaves out: `ssh -R` carries bytes and knows neither users "
              "nor HTTP; culvert checks a token, parses and rewrites each request, and runs SSH "
              "inside a WebSocket.", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--out")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--gib", type=int, default=1)
    parser.add_argument("--links", type=int, default=50)
    arguments = parser.parse_args()
    os.environ["CULVERT_BUILD"] = str(Path(arguments.build).resolve())
    os.environ.setdefault("CULVERT_TEST_LOG_LEVEL", "warn")
    from culvert import World

    folder = Path(tempfile.mkdtemp(prefix="culvert-bench-"))
    world = World(folder, workers=0)
    try:
        port = start_nginx(world, {"small": b"x" * 128, "big": arguments.gib << 30})
        relay = world.relay(env={"SSH_MAX_CHANNELS": "200", "LOG_LEVEL": "info"},
                            workers=os.cpu_count())
        agent = world.http(relay, port, env={"SSH_MAX_CHANNELS": "200", "LOG_LEVEL": "info"})
        ssh = OpenSSH(world)
        ssh_port, ssh_client = ssh.publish(port)
        paths = [
            Route("direct", f"http://127.0.0.1:{port}", None, []),
            Route("ssh", f"http://127.0.0.1:{ssh_port}", None, [ssh.daemon.pid, ssh_client.pid]),
            Route("culvert", f"http://127.0.0.1:{relay.port}/t/home",
                  f"Authorization: Bearer {world.token()}", [relay.pid, agent.pid]),
        ]
        rows = []

        def add(name, results):
            rows.append((f"{name}, requests/s", {k: v["rate"] for k, v in results.items()},
                         lambda v: f"{v:,.0f}"))
            rows.append((f"{name}, CPU s per 1,000 requests",
                         {k: v["cpu"] for k, v in results.items() if k != "direct"},
                         lambda v: f"{v:.3f}"))
            rows.append((f"{name}, p99", {k: v["p99"] for k, v in results.items()}, str))
            for key, value in results.items():
                if value["errors"]:
                    print(f"{name}: {key}: {value['errors']} errors", file=sys.stderr)

        for name, connections, close in (("10 keep-alive connections", 10, False),
                                         ("100 keep-alive connections", 100, False),
                                         ("a connection per request", 10, True)):
            add(name, {p.name: wrk(p, connections, arguments.seconds, close) for p in paths})
        bulk(paths[0], arguments.gib)  # so that the file is in memory for everybody
        results = {p.name: bulk(p, arguments.gib) for p in paths}
        rows.append(("bulk, MB/s", {k: v["rate"] for k, v in results.items()},
                     lambda v: f"{v:,.0f}"))
        rows.append(("bulk, CPU s per GiB",
                     {k: v["cpu"] for k, v in results.items() if k != "direct"},
                     lambda v: f"{v:.2f}"))
        memory = idle_memory(world, ssh, port, arguments.links)
        text = report(rows, memory, arguments)
        if arguments.out:
            Path(arguments.out).write_text(text)
        print(text)
    finally:
        world.close()
        shutil.rmtree(folder, ignore_errors=True)


main()
