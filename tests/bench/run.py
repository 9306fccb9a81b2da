#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures culvert beside `ssh -R` (OpenSSH), no tunnel at all and the floor programs, on one
machine and in one run.

    tests/bench/run.py --build FOLDER [--out FILE] [--json FILE] [--rounds N] [--seconds N]
                       [--group GROUP]...

Every route of a case is measured in each round, one after the other, so that what else happens to
the machine happens to all; a figure is the median of the rounds, and its spread is told. The JSON
has every single one; with --group, groups measured before are kept in it. The service is nginx, the
load is wrk, curl and tests/load.
"""
import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import machine
import report

BIG_MIB = 1024
FILES = {"small": b"x" * 128, "1k": b"x" * 1024, "64k": b"x" * 65536, "1m": 1 << 20,
         "256mib": 256 << 20, "1024mib": BIG_MIB << 20}


class Bench:
    def __init__(self, world, arguments):
        import routes
        self.world, self.arguments, self.routes = world, arguments, routes
        self.results = {}
        self.port = machine.start_nginx(world, FILES)
        self.direct = routes.Route("direct", f"http://127.0.0.1:{self.port}")
        self._tls = None

    @property
    def tls(self):
        self._tls = self._tls or self.routes.certificate(self.world.folder)
        return self._tls

    def measure(self, case, routes, work, rounds=None):
        """work(route) for each route in each round; what fails says so and is left out."""
        for number in range(rounds or self.arguments.rounds):
            for route in routes:
                found = work(route)
                if found["faults"]:
                    print(f"{case}: {route.name}: {found['faults']} faults "
                          f"{found.get('said', '')}", file=sys.stderr)
                self.results.setdefault(case, {}).setdefault(route.name, []).append(found)
            print(f"{case}, round {number + 1}: " + ", ".join(
                f"{route.name} {report.headline(self.results[case][route.name][-1])}"
                for route in routes), file=sys.stderr, flush=True)

    def note(self, case, name, figures):
        self.results.setdefault(case, {}).setdefault(name, []).append(figures)
        print(f"{case}: {name}: {figures}", file=sys.stderr, flush=True)


def main_routes(bench):
    r = bench.routes
    many = r.Culvert(bench.world, channels=128)
    few = r.Culvert(bench.world)
    wss = r.Culvert(bench.world, channels=128, tls=bench.tls)
    return {
        "direct": bench.direct,
        "ssh": r.OpenSSH(bench.world).route(bench.port),
        "culvert": many.route(bench.port, "culvert"),
        "default": few.route(bench.port, "culvert, default channels"),
        "tls": wss.route(bench.port, "culvert, TLS"),
    }


def group_requests(bench):
    import loads
    found = main_routes(bench)
    one = bench.routes.Culvert(bench.world, workers=1, channels=128).route(
        bench.port, "culvert, 1 worker")
    floor = bench.routes.floor(bench.world, "floor_requests", bench.port)
    seconds = bench.arguments.seconds
    for connections in (10, 100):
        bench.measure(f"requests, {connections} keep-alive connections",
                      [*found.values(), one, floor],
                      lambda route, n=connections: loads.requests(route, n, seconds))
    bench.measure("requests, a connection each, 50 at once", [*found.values(), one],
                  lambda route: loads.requests(route, 50, seconds, close=True))


def group_bodies(bench):
    import loads
    found = main_routes(bench)
    del found["default"]
    for file, text in (("1k", "1 KiB"), ("64k", "64 KiB"), ("1m", "1 MiB")):
        bench.measure(f"requests, 10 connections, bodies of {text}", list(found.values()),
                      lambda route, f=file: loads.requests(route, 10, bench.arguments.seconds, f))


def group_bulk(bench):
    import loads
    found = main_routes(bench)
    del found["default"]
    floor = bench.routes.floor(bench.world, "floor_bulk", bench.port)
    # So that the file is in memory for everybody.
    loads.download(bench.direct, BIG_MIB, f"{BIG_MIB}mib")
    bench.measure("download of 1 GiB", [*found.values(), floor],
                  lambda route: loads.download(route, BIG_MIB, f"{BIG_MIB}mib"))


def group_line(bench):
    """A line of 50 ms between agent and relay: 25 and 100 MiB/s take 1.25 and 5 MiB to fill."""
    import loads
    r = bench.routes
    relay = r.Culvert(bench.world)
    ssh = r.OpenSSH(bench.world)
    for rate, mib, file in ((25, 256, "256mib"), (100, 1024, "1024mib")):
        lines = [
            r.Route("line", f"http://127.0.0.1:{r.delayed(bench.world, bench.port, 25, rate)}"),
            ssh.route(bench.port, r.delayed(bench.world, ssh.port, 25, rate)),
            relay.route(bench.port, "culvert", f"line{rate}",
                        r.delayed(bench.world, relay.relay.port, 25, rate)),
        ]
        bench.measure(f"download over a line of 50 ms and {rate} MiB/s", lines,
                      lambda route, m=mib, f=file: loads.download(route, m, f), rounds=1)


def group_latency(bench):
    import loads
    r, world = bench.routes, bench.world
    found = main_routes(bench)
    del found["tls"]  # load_consumers has none
    bench.measure("latency at 1,000 requests/s, 20 connections",
                  [found[name] for name in ("direct", "ssh", "culvert", "default")],
                  lambda route: loads.steady(world, route, 1000, bench.arguments.seconds))
    port = r.free_port()
    world.spawn(r.program("load_service"), port, 50)
    r.wait_for(lambda: machine.is_open(port), what="load_service")
    relay = r.Culvert(world, channels=128)
    ssh = r.OpenSSH(bench_folder(bench, "streams"))
    bench.measure("latency of a token, 50 streams of 50 a second",
                  [r.Route("direct", f"http://127.0.0.1:{port}"), ssh.route(port),
                   relay.route(port, "culvert")],
                  lambda route: loads.streams(world, route, 50, bench.arguments.seconds + 1))
    for name, tls in (("culvert", None), ("culvert, TLS", bench.tls)):
        relay = r.Culvert(world, tls=tls)
        crowd = r.Crowd(world, relay.relay, bench.port, 200, 20, relay.ca)
        times = crowd.line()["set_up_us"]
        crowd.end()
        bench.note("link set-up, 20 a second", name,
                   {f"{k}_ms": v / 1000 for k, v in times.items() if k != "count"})


def bench_folder(bench, name):
    """The same world with a folder of its own, for what can be there only once."""
    import copy
    world = copy.copy(bench.world)
    world.folder = bench.world.folder / name
    world.folder.mkdir()
    return world


def group_users(bench):
    import loads
    r = bench.routes
    routes = []
    for users in (1, 100, 1000):
        relay = r.Culvert(bench.world, channels=128)
        crowd = r.Crowd(bench.world, relay.relay, bench.port, users, 500, channels=128)
        crowd.line()
        route = r.Route(f"culvert, users: {users:,}", f"{relay.relay.http_url}/t/home",
                        {"relay": [relay.relay.pid], "agent": [crowd.process.pid]})
        route.tokens = crowd.tokens
        routes.append(route)
    bench.measure("requests, 100 keep-alive connections, by users", routes,
                  lambda route: loads.requests(route, 100, bench.arguments.seconds,
                                               tokens=route.tokens))


def group_links(bench):
    """KiB for each idle link at the public end: relay, and sshd's processes for a connection."""
    r, count = bench.routes, 200
    for name, tls in (("culvert", None), ("culvert, TLS", bench.tls)):
        relay = r.Culvert(bench.world, tls=tls)
        r.Crowd(bench.world, relay.relay, bench.port, 20, 0, relay.ca, first=90000).line()
        time.sleep(1)
        before = machine.private_kib([relay.relay.pid])
        r.Crowd(bench.world, relay.relay, bench.port, count, 100, relay.ca).line()
        time.sleep(1)
        kib = (machine.private_kib([relay.relay.pid]) - before) / count
        bench.note("memory of an idle link at the public end", name, {"kib": kib})
    ssh = r.OpenSSH(bench.world)
    before = machine.private_kib([ssh.daemon.pid])
    for _ in range(10):
        ssh.publish(bench.port)
    bench.note("memory of an idle link at the public end", "ssh -R",
               {"kib": (machine.private_kib([ssh.daemon.pid]) - before) / 10})


def group_scale(bench):
    import scale
    scale.storm(bench)
    scale.busy(bench)
    scale.idle(bench)


GROUPS = {name.removeprefix("group_"): value for name, value in list(globals().items())
          if name.startswith("group_")}


def run_group(name, arguments):
    """In a world of its own, so that nothing that an earlier group left running takes part."""
    from culvert import World
    folder = Path(tempfile.mkdtemp(prefix="culvert-bench-"))
    world = World(folder, workers=0)
    try:
        bench = Bench(world, arguments)
        GROUPS[name](bench)
        return bench.results
    finally:
        world.close()
        shutil.rmtree(folder, ignore_errors=True)


def medians(runs):
    """One route's rounds: each figure's median, and how far the rate (or p50) was from it."""
    result = {"rounds": runs}
    for key in runs[0]:
        values = [run.get(key) for run in runs]
        if isinstance(values[0], bool):
            result[key] = all(values)
        elif isinstance(values[0], dict):
            result[key] = {end: statistics.median(v[end] for v in values) for end in values[0]}
        elif isinstance(values[0], (int, float)):
            result[key] = statistics.median(v for v in values if v is not None)
    for key in ("rate", "p50_ms"):
        if key in runs[0]:
            values = [run[key] for run in runs]
            result["spread"] = (max(values) - min(values)) / (2 * max(result[key], 1e-9))
            break
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--out", help="Markdown")
    parser.add_argument("--json")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--group", action="append", choices=GROUPS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # worlds end what they have started
    build = Path(arguments.build).resolve()
    os.environ["CULVERT_BUILD"] = str(build)
    os.environ.setdefault("CULVERT_TEST_LOG_LEVEL", "info")
    path = Path(arguments.json or build / "bench.json")
    stored = json.loads(path.read_text()) if arguments.group and path.exists() else {"groups": {}}
    for name in arguments.group or GROUPS:
        cases = run_group(name, arguments)
        stored["machine"] = machine.describe()
        stored["groups"][name] = {
            "seconds": arguments.seconds,
            "cases": {case: {route: medians(runs) for route, runs in found.items()}
                      for case, found in cases.items()}}
        path.write_text(json.dumps(stored, indent=1) + "\n")
    text = report.markdown(stored)
    if arguments.out:
        Path(arguments.out).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
