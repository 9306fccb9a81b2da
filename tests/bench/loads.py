# SPDX-License-Identifier: MIT
"""One measurement each: drives a route for a while and says what came of it, as a dict of figures.

`cpu` is CPU seconds by end of the tunnel, for 1,000 requests or for a GiB.
"""
import json
import re
import subprocess
import time

from machine import cpu_seconds
from routes import program

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
ROTATE = """
local tokens, n = {}, 0
for line in io.lines("%s") do tokens[#tokens + 1] = line end
local requests = {}
request = function()
  n = n %% #tokens + 1
  if not requests[n] then
    requests[n] = wrk.format("GET", nil, {["Host"] = "bench.test",
                                          ["Authorization"] = "Bearer " .. tokens[n]})
  end
  return requests[n]
end
"""


def _cpu(route, work):
    """What work() returns, and CPU seconds by end meanwhile."""
    before = {end: cpu_seconds(pids) for end, pids in route.pids.items()}
    result = work()
    return result, {end: cpu_seconds(pids) - before[end] for end, pids in route.pids.items()}


def requests(route, connections, seconds, file="small", close=False, tokens=None):
    """wrk with one thread, as fast as answers come."""
    words = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency"]
    if tokens:
        script = tokens.with_suffix(".lua")
        script.write_text(ROTATE % tokens)
        words += ["-s", script]
    elif route.header:
        words += ["-H", route.header]
    if close:
        words += ["-H", "Connection: close"]
    done, cpu = _cpu(route, lambda: subprocess.run(
        [*words, f"{route.url}/{file}"], check=True, capture_output=True, text=True))
    text = done.stdout
    count = int(re.search(r"(\d+) requests in", text).group(1))
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    # A server that closes first when asked to may count as a read error; it is no failure.
    faults = int(failed.group(1)) if failed else 0
    if broken:
        faults += int(broken.group(1)) + int(broken.group(4))
    quantiles = {}
    for percent, number, unit in re.findall(r"^\s+(50|90|99)%\s+([\d.]+)(us|ms|s|m)\s*$", text,
                                            re.M):
        quantiles[f"p{percent}_ms"] = 1000 * float(number) * UNITS[unit]
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
            "cpu": {end: 1000 * value / max(count, 1) for end, value in cpu.items()},
            "faults": faults, **quantiles}


def download(route, mib, file):
    """One file by curl; MiB/s."""
    words = ["curl", "-sS", "-f", "-o", "/dev/null", "-H", "Connection: close", "-w",
             "%{size_download}"]
    if route.header:
        words += ["-H", route.header]
    if route.ca:
        words += ["--cacert", str(route.ca)]
    started = time.monotonic()
    done, cpu = _cpu(route, lambda: subprocess.run(
        [*words, f"{route.url}/{file}"], check=True, capture_output=True, text=True))
    seconds = time.monotonic() - started
    assert int(done.stdout) == mib << 20, "the file came short"
    return {"rate": mib / seconds, "cpu": {end: 1024 * v / mib for end, v in cpu.items()},
            "faults": 0}


def consumers(*words):
    """tests/load/load_consumers; its answer in milliseconds."""
    done = subprocess.run([program("load_consumers"), *map(str, words)], check=True,
                          capture_output=True, text=True)
    found = json.loads(done.stdout)
    result = {f"{name}_ms": value / 1000 for name, value in found["us"].items() if name != "count"}
    result.update(answers=found["answers"], faults=found["faults"], said=done.stderr)
    return result


def _tokens(world, route):
    if not route.header:
        return "-"
    return world.write("one-token", route.header.rpartition(" ")[2] + "\n")


def steady(world, route, per_second, seconds, connections=20, tokens=None):
    found, cpu = _cpu(route, lambda: consumers(
        "requests", route.port, route.path.rstrip("/") + "/small", tokens or _tokens(world, route),
        connections, per_second, seconds))
    return {**found, "cpu": {end: value / seconds / per_second * 1000
                             for end, value in cpu.items()}}


def streams(world, route, count, seconds):
    found, cpu = _cpu(route, lambda: consumers(
        "streams", route.port, route.path.rstrip("/") + "/events", _tokens(world, route), count,
        seconds))
    return {**found, "cpu": {end: 1000 * value / max(found["answers"], 1)
                             for end, value in cpu.items()}}
