# SPDX-License-Identifier: MIT
"""docs/performance.md from the figures of run.py, and their distance from what was aimed at."""

from pathlib import Path

NOTES = Path(__file__).resolve().parent.parent.parent / "docs" / "performance-notes.md"
# Case → (route to compare with, at least so many times as fast as that). From the figures of the
# peers on the machine where the goals were set, and from how near to the floor one can be.
GOALS = {
    "requests, 10 keep-alive connections": [("ssh -R", 2.7), ("floor", 0.7)],
    "requests, 100 keep-alive connections": [("ssh -R", 3.3), ("floor", 0.7)],
    "requests, a connection each, 50 at once": [("ssh -R", 1.75)],
    "download of 1 GiB": [("ssh -R", 1.2), ("floor", 0.9)],
    "download over a line of 50 ms and 25 MiB/s": [("line", 0.9)],
    "download over a line of 50 ms and 100 MiB/s": [("line", 0.9)],
}
# (case, route, figure, at most, subtract the same figure of this route)
LIMITS = [
    ("latency at 1,000 requests/s, 20 connections", "culvert", "p95_ms", 1.0, "direct"),
    ("latency of a token, 50 streams of 50 a second", "culvert", "p99_ms", 2.0, "direct"),
    ("link set-up, 20 a second", "culvert, TLS", "p95_ms", 150, None),
    ("memory of an idle link at the public end", "culvert", "kib", 64, None),
    ("memory of an idle link at the public end", "culvert, TLS", "kib", 100, None),
]
INTRODUCTION = """# Performance

Made by `make bench`: culvert beside `ssh -R`, beside no tunnel at all, and beside programs that do
only what no tunnel can leave out (tests/bench/floor_*.c), in one run, on one machine, over
loopback. The service is nginx with one worker; the load is wrk with one thread, curl, and
tests/load. Generator, service and tunnel share the processors, so absolute figures are low and move
with the machine; the ratios are what to look at.

`culvert` has `ssh.max_channels: 128` on both sides, which is how many requests are under way on a
link at once; `default channels` is 10. Unless a row says otherwise the relay has a worker for each
processor, the link is `ws://`, and `TLS` is both `https://` and `wss://`. CPU is user and system
time of each end alone. `spread` is half the distance between the best and the worst round.

What the comparison leaves out: `ssh -R` carries bytes and knows neither users nor HTTP; culvert
checks a token, parses and rewrites each request, and runs SSH inside a WebSocket. frp and chisel
are not in Debian and so not in this run.
"""


def headline(figures):
    for key, form in (("rate", "{:,.0f}"), ("p50_ms", "{:.3f} ms"), ("kib", "{:.0f} KiB")):
        if key in figures:
            return form.format(figures[key])
    return "?"


def _cases(stored):
    return {case: routes for group in stored["groups"].values()
            for case, routes in group["cases"].items()}


def _number(value):
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if not value:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _goals(cases):
    rows = []
    for case, goals in GOALS.items():
        for other, least in goals:
            routes = cases.get(case, {})
            if "culvert" not in routes or other not in routes:
                continue
            got = routes["culvert"]["rate"] / routes[other]["rate"]
            rows.append([case, f"culvert / {other}", f"≥ {least}", f"{got:.2f}",
                         "yes" if got >= least else "**no**"])
    for case, route, key, most, less in LIMITS:
        routes = cases.get(case, {})
        if route not in routes:
            continue
        got = routes[route][key] - (routes[less][key] if less else 0)
        above = f" above {less}" if less else ""
        rows.append([case, f"{route}, {key.replace('_', ' ')}{above}", f"≤ {most}", f"{got:.2f}",
                     "yes" if got <= most else "**no**"])
    return _table(["case", "what", "goal", "here", "met"], rows)


def _ends(routes):
    """Route → CPU of its ends, "relay + agent"."""
    return {route: " + ".join(f"{value:.3f}" for value in (figures.get("cpu") or {}).values()) or "–"
            for route, figures in routes.items()}


def _case(case, routes):
    lines = ["", f"## {case[0].upper()}{case[1:]}", ""]
    cpu = _ends(routes)
    first = next(iter(routes.values()))
    if not {"kib", "rate", "p50_ms"} & set(first):
        keys = [key for key in first if key not in ("rounds", "spread")]
        return lines + _table(["", *keys], [[r, *(_number(f[k]) for k in keys)]
                                            for r, f in routes.items()])
    if "kib" in first:
        return lines + _table(["", "KiB"], [[r, _number(f["kib"])] for r, f in routes.items()])
    if "rate" not in first:
        keys = ["p50_ms", "p95_ms", "p99_ms", "max_ms"]
        return lines + _table(
            ["", "p50, ms", "p95, ms", "p99, ms", "worst, ms", "spread of p50", "CPU s per 1,000"],
            [[r, *(_number(f.get(k)) for k in keys), f"{100 * f.get('spread', 0):.0f} %", cpu[r]]
             for r, f in routes.items()])
    ours = routes.get("culvert", {}).get("rate")
    is_bulk = case.startswith("download")
    head = ["", "MiB/s" if is_bulk else "requests/s", "spread", "culvert is"]
    head += ["CPU s per GiB"] if is_bulk else ["p50, ms", "p99, ms", "CPU s per 1,000"]
    rows = []
    for route, figures in routes.items():
        row = [route, _number(figures["rate"]), f"{100 * figures['spread']:.0f} %",
               f"× {ours / figures['rate']:.2f}" if ours else "–"]
        if not is_bulk:
            row += [_number(figures.get("p50_ms")), _number(figures.get("p99_ms"))]
        rows.append([*row, cpu[route]])
    return lines + _table(head, rows)


def markdown(stored):
    cases = _cases(stored)
    lines = [INTRODUCTION]
    if NOTES.exists():
        lines += [f"[{NOTES.name}]({NOTES.name}) tells what was tried, and what it gave.", ""]
    lines += [f"Machine: {stored['machine']}.", "", "## What was aimed at", ""]
    lines += _goals(cases)
    for case, routes in cases.items():
        lines += _case(case, routes)
    lines += ["", "CPU is told as relay + agent, sshd + ssh; of streams, for 1,000 tokens.", ""]
    return "\n".join(lines)
