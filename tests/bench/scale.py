# SPDX-License-Identifier: MIT
"""Many links in one relay: a storm of agents, a thousand busy links, ten thousand idle ones."""
import time

import loads
import machine

STORM, BUSY, IDLE = 2000, 1000, (1000, 5000, 10000)
# Longer than the interval of heartbeats (ws.ping_interval, 30 s), so that each link has had one.
REST_S = 33


def relay_for(bench, count):
    return bench.routes.Culvert(bench.world, env={"CULVERT_LIMITS_MAX_CONNECTIONS": 2 * count})


def is_healthy(crowd, count):
    """All are up, and none was lost and came back."""
    state = crowd.state()
    return state["up"] == count and state["ended"] == 0 and state["again"] == 0


def storm(bench):
    relay = relay_for(bench, STORM)
    crowd = bench.routes.Crowd(bench.world, relay.relay, bench.port, STORM)
    up = crowd.line()
    bench.note(f"storm of {STORM:,} agents at once", "culvert", {
        "seconds until all are up": up["seconds"],
        "relay, CPU s": machine.cpu_seconds([relay.relay.pid]),
        "agents, CPU s": machine.cpu_seconds([crowd.process.pid]),
        "worst, s": up["set_up_us"]["max"] / 1e6,
        "all healthy": is_healthy(crowd, STORM)})
    crowd.end()
    relay.relay.stop()


def busy(bench):
    relay = relay_for(bench, BUSY)
    crowd = bench.routes.Crowd(bench.world, relay.relay, bench.port, BUSY, 500)
    crowd.line()
    route = bench.routes.Route("culvert", f"{relay.relay.http_url}/t/home",
                               {"relay": [relay.relay.pid], "agents": [crowd.process.pid]})
    # One connection for each user, so that every link has one request a second.
    found = loads.steady(bench.world, route, 1000, 10, BUSY, crowd.tokens)
    bench.note(f"{BUSY:,} links, 1,000 requests/s over all of them", "culvert", {
        "p50, ms": found["p50_ms"], "p95, ms": found["p95_ms"], "p99, ms": found["p99_ms"],
        "faults": found["faults"], "relay, CPU s per 1,000": found["cpu"]["relay"],
        "agents, CPU s per 1,000": found["cpu"]["agents"],
        "all healthy": is_healthy(crowd, BUSY)})
    crowd.end()
    relay.relay.stop()


def idle(bench):
    relay = relay_for(bench, IDLE[-1])
    pid = relay.relay.pid
    # What the first ever link costs is not the links'.
    bench.routes.Crowd(bench.world, relay.relay, bench.port, 10, 0, first=90000).line()
    time.sleep(1)
    empty_kib, crowds, so_far = machine.private_kib([pid]), [], 0
    for count in IDLE:
        crowd = bench.routes.Crowd(bench.world, relay.relay, bench.port, count - so_far, 500,
                                   first=so_far)
        crowd.line()
        crowds.append((crowd, count - so_far))
        so_far = count
        time.sleep(2)
        kib = (machine.private_kib([pid]) - empty_kib) / count
        before = machine.cpu_seconds([pid])
        time.sleep(REST_S)
        cpu = (machine.cpu_seconds([pid]) - before) / REST_S
        bench.note("idle links with heartbeats", f"{count:,} links", {
            "KiB per link": kib, "relay's CPU at rest, %": 100 * cpu,
            "µs of CPU per link and second": 1e6 * cpu / count,
            "all healthy": all(is_healthy(*item) for item in crowds)})
    for crowd, _ in crowds:
        crowd.end()
