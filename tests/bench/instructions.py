#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Counts the instructions that relay and agent spend on a request, a MiB, a token of a stream.

    tests/bench/instructions.py --build FOLDER             compare with instructions.json: exit code
                                                           1 when anything is more than 5 % above
    tests/bench/instructions.py --build FOLDER --update    write instructions.json
    tests/bench/instructions.py --build FOLDER --profile CASE [--top N]
                                                           by function, for one case
    tests/bench/instructions.py --build FOLDER --telemetry  what telemetry adds: everything on
                                                           against everything off

A case is one pattern of load; callgrind.py says how its cost is had. Requests come one after the
other on one kept connection (`request`), from ten connections in step (`request_10`), or on a
connection each (`connection`); `download` is a file of many MiB, `token` an event stream of
small chunks. System calls and allocations are counted besides.
"""
import argparse
import concurrent.futures
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

import callgrind
from machine import describe, start_nginx

BASELINE = Path(__file__).with_name("instructions.json")
# How far above the baseline a figure may be, as a part of it and beyond that; how much of a
# download one read takes depends on who is faster, and so does the number of system calls.
CLOCKS = {"clock_gettime", "gettimeofday", "time"}
TOLERANCE = {"instructions": (0.05, 100), "syscalls": (0.5, 0.2), "allocations": (0.25, 0.2)}
MIB = 1 << 20
MIBS = 128


class Load:
    """A consumer of one tunnel that sends as it is told and counts what comes."""

    def __init__(self, port, token):
        self.port = port
        self.head = (f"Host: bench.test\r\nAuthorization: Bearer {token}\r\n"
                     "User-Agent: bench\r\nAccept: */*\r\n")

    def connect(self):
        sock = socket.create_connection(("127.0.0.1", self.port), 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def send(self, sock, path, extra=""):
        sock.sendall(f"GET /t/home/{path} HTTP/1.1\r\n{self.head}{extra}\r\n".encode())

    @staticmethod
    def receive(sock):
        """One answer with a length; how long the body was."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            assert piece, "the connection ended"
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        field = head.lower().partition(b"\r\ncontent-length: ")[2]
        length = int(field.partition(b"\r\n")[0])
        buffer, left = bytearray(MIB), length - len(body)
        while left:
            got = sock.recv_into(buffer, min(left, MIB))
            assert got, "the body ended"
            left -= got
        return length

    def requests(self, count, at_once=1):
        """In rounds: a request on each connection, then all the answers."""
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(self.connect()) for _ in range(at_once)]
            for _ in range(count // at_once):
                for sock in socks:
                    self.send(sock, "small")
                for sock in socks:
                    self.receive(sock)

    def connections(self, count):
        for _ in range(count):
            with self.connect() as sock:
                self.send(sock, "small", "Connection: close\r\n")
                self.receive(sock)

    def download(self, mib):
        with self.connect() as sock:
            self.send(sock, f"{mib}mib")
            assert self.receive(sock) == mib * MIB

    def tokens(self, count):
        with self.connect() as sock:
            self.send(sock, f"events?{count}")
            seen = b""
            while not seen.endswith(b"0\r\n\r\n"):
                piece = sock.recv(65536)
                assert piece, "the stream ended"
                seen = (seen + piece)[-16:]


# Case → (how many units, what sends them).
CASES = {
    "request": (3000, lambda load, n: load.requests(n)),
    "request_10": (6000, lambda load, n: load.requests(n, 10)),
    "connection": (1000, lambda load, n: load.connections(n)),
    "download": (MIBS, lambda load, n: load.download(n)),
    "token": (800, lambda load, n: load.tokens(n)),
}
# What is sent before in both runs, so that only the first of its kind pays for it: by default
# requests one by one. How many streams ten at once open depends on who is faster.
WARM_UP = {
    "request_10": lambda load: load.requests(200, 10),
    "token": lambda load: load.tokens(20),
}
UNITS = {"download": "MiB", "token": "token"}
# What looks at what happens; `traced`: each request has spans, whose collector is not there.
DEFAULT = {"LOG_LEVEL": "info"}
TELEMETRY = {
    "off": {"CULVERT_METRICS_ENABLED": "false", "CULVERT_HISTORY_ENABLED": "false",
            "CULVERT_AUDIT_ENABLED": "false", "LOG_LEVEL": "error"},
    "on": {"LOG_LEVEL": "info", "CULVERT_METRICS_MODELS": "true"},
    "traced": {"LOG_LEVEL": "error", "TRACING_ENABLED": "true",
               "TRACING_ENDPOINT": "http://127.0.0.1:9/v1/traces"},
}
EVENTS = {"plain": b'data: {"token":%6d}\n\n',
          "model": b'data: {"choices":[{"delta":{"content":"%6d"}}]}\n\n'}


def serve_events(kind):
    """/events?N: N chunks, each sent when the one before has had time to arrive: under callgrind a
    turn of the loop takes milliseconds, and tokens that arrive together would share one."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock):
        with sock, contextlib.suppress(OSError):
            data = b""
            while piece := sock.recv(65536):
                data += piece
                if b"\r\n\r\n" not in data:
                    continue
                count = int(data.split(b" ")[1].rpartition(b"?")[2])
                data = b""
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                             b"Transfer-Encoding: chunked\r\n\r\n")
                pause = threading.Event()
                for number in range(count):
                    event = EVENTS[kind] % number
                    sock.sendall(b"%x\r\n%s\r\n" % (len(event), event))
                    pause.wait(0.008)
                sock.sendall(b"0\r\n\r\n")

    def accept():
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=serve, args=(sock,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return listener


def warm_up(load):
    load.requests(30)
    load.download(1)


def is_disturbed(agent):
    """A second handshake costs as much as some hundred requests: the machine was too busy for the
    first one's time limits."""
    return any(agent.find(event) for event in
               ("connect_failed", "reconnecting", "connection_lost", "link_resumed"))


def run(case, units, env, tries=3):
    """One run of relay and agent under callgrind; their profiles. Without units: start, warm-up and
    end alone."""
    import culvert
    folder = Path(tempfile.mkdtemp(prefix="culvert-instructions-"))
    world = culvert.World(folder, workers=1)
    out = folder / "callgrind"
    out.mkdir()
    wrapper = [callgrind.wrap(out, culvert.BIN)]
    events = serve_events("plain" if env == DEFAULT else "model")
    try:
        files = {"small": b"x" * 128, "1mib": MIB, f"{MIBS}mib": MIBS * MIB}
        port = events.getsockname()[1] if case == "token" else start_nginx(world, files)
        relay = world.relay(env=env, wrapper=wrapper)
        agent = world.http(relay, port, env=DEFAULT, wrapper=wrapper)
        load = Load(relay.port, world.token())
        WARM_UP.get(case, warm_up)(load)
        if units:
            CASES[case][1](load, units)
        pids = {"relay": relay.pid, "agent": agent.pid}
        agent.stop()
        relay.stop()
        if is_disturbed(agent) and tries > 1:
            return run(case, units, env, tries - 1)
        return {name: callgrind.parse(out / f"{pid}.out") for name, pid in pids.items()}
    finally:
        events.close()
        world.close()
        shutil.rmtree(folder, ignore_errors=True)


def profiles(cases, env=None):
    """Relay's and agent's profile for one unit of each case."""
    env = env or DEFAULT
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        few = {warm: pool.submit(run, warm, 0, env)
               for warm in {case if case in WARM_UP else "" for case in cases}}
        many = {case: pool.submit(run, case, CASES[case][0], env) for case in cases}

        def difference(case, name):
            before = few.get(case) or few[""]
            return many[case].result()[name].minus(before.result()[name], CASES[case][0])
        return {case: {name: difference(case, name) for name in ("relay", "agent")}
                for case in cases}


def syscalls(profile):
    """Clocks are read without one, but under valgrind, which has no vDSO."""
    return sum(count for function, count in profile.syscalls.items()
               if function.partition("@")[0] not in CLOCKS)


def figures(profile):
    return {"instructions": round(profile.instructions),
            "syscalls": round(syscalls(profile), 2),
            "allocations": round(profile.allocations, 2)}


def show(name, case, profile, top):
    per = UNITS.get(case, "request")
    print(f"\n{name}: {profile.instructions:,.0f} instructions, "
          f"{syscalls(profile):.2f} system calls, "
          f"{profile.allocations:.2f} allocations per {per}")
    print(f"{'itself':>10} {'%':>5} {'with all':>10} {'calls':>8} {'syscalls':>8}  function")
    for function, cost in profile.self_cost.most_common(top):
        print(f"{cost:10,.0f} {100 * cost / profile.instructions:5.1f} "
              f"{profile.inclusive[function]:10,.0f} {profile.calls[function]:8.2f} "
              f"{profile.syscalls[function]:8.2f}  {function}")


def compare(now, before):
    """Prints the table; the cases in which something has risen by more than the tolerance."""
    worse = []
    print(f"{'':28}{'instructions':>14}{'baseline':>12}{'':>8}{'syscalls':>10}{'mallocs':>9}")
    for case, ends in now.items():
        for name, values in ends.items():
            old = before.get(case, {}).get(name)
            base = old["instructions"] if old else 0
            change = f"{100 * (values['instructions'] / base - 1):+.1f} %" if base else ""
            print(f"{name + ' per ' + UNITS.get(case, case):28}{values['instructions']:14,}"
                  f"{base:12,}{change:>8}{values['syscalls']:10.2f}{values['allocations']:9.2f}")
            for key, value in values.items() if old else ():
                part, slack = TOLERANCE[key]
                if value > old[key] * (1 + part) + slack:
                    print(f"  {key} of the {name}, case {case}: {value:,} is more than "
                          f"{100 * part:.0f} % above {old[key]:,}")
                    worse.append(case)
    return list(dict.fromkeys(worse))


def telemetry(cases):
    """What the relay spends on looking at what happens."""
    costs = {how: profiles(cases, env) for how, env in TELEMETRY.items()}
    for case in cases:
        off = costs["off"][case]["relay"].instructions
        print(f"relay per {UNITS.get(case, case)}: off {off:,.0f}", end="")
        for how in ("on", "traced"):
            cost = costs[how][case]["relay"].instructions
            print(f", {how} {cost:,.0f} ({100 * (cost / off - 1):+.1f} %)", end="")
        print()
    return 0


def measure(cases):
    return {case: {name: figures(profile) for name, profile in ends.items()}
            for case, ends in profiles(cases).items()}


def least(some, others):
    """How bytes fall into reads differs from run to run; what the code costs is the least seen."""
    return {case: {name: {key: min(value, others[case][name][key]) for key, value in values.items()}
                   for name, values in ends.items()} if case in others else ends
            for case, ends in some.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--telemetry", action="store_true")
    parser.add_argument("--profile", choices=CASES)
    parser.add_argument("--top", type=int, default=40)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--out", help="JSON of this run")
    arguments = parser.parse_args()
    os.environ["CULVERT_BUILD"] = str(Path(arguments.build).resolve())
    import culvert
    culvert.READY_S = 60  # callgrind makes a program some fifty times slower
    cases = [arguments.profile] if arguments.profile else arguments.case or list(CASES)
    if arguments.profile:
        for name, profile in profiles(cases)[arguments.profile].items():
            show(name, arguments.profile, profile, arguments.top)
        return 0
    if arguments.telemetry:
        return telemetry(cases)
    now = measure(cases)
    stored = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    before = stored.get("cases", {})
    worse = compare(now, before)
    for _ in range(2):
        if worse and not arguments.update:
            print(f"once more: {', '.join(worse)}")
            now = least(now, measure(worse))
            worse = compare(now, before)
    text = json.dumps({"machine": describe(), "cases": now}, indent=1) + "\n"
    if arguments.out:
        Path(arguments.out).write_text(text)
    if arguments.update:
        BASELINE.write_text(text)
        return 0
    if worse:
        print("instructions: if the rise is meant, run tests/bench/instructions.py with --update "
              "and say in the commit what it buys")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
