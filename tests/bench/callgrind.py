# SPDX-License-Identifier: MIT
"""Runs relay and agent under callgrind and reads what it wrote.

callgrind counts every instruction of a process from start to end, so one run alone is mostly
start-up. The load's own cost is the difference between two runs that differ in nothing but how
much they carried; it is nearly the same from run to run and hardly depends on the machine, which
CPU time does.
"""
import collections
import os
import re
import shlex
import shutil

ALLOCATIONS = ("malloc", "calloc", "realloc", "reallocarray", "posix_memalign", "aligned_alloc")
NAME = re.compile(r"\((\d+)\)(?: (.*))?$")


class Profile:
    """Costs by function: what it did itself, and with all that it called; instructions, system
    calls, and how often it was called."""

    def __init__(self):
        self.self_cost = collections.Counter()
        self.inclusive = collections.Counter()
        self.syscalls = collections.Counter()
        self.calls = collections.Counter()

    @property
    def instructions(self):
        return sum(self.self_cost.values())

    @property
    def allocations(self):
        return sum(self.calls[name] for name in ALLOCATIONS)

    def minus(self, other, by):
        """The difference of two runs, per unit of what the second carried more."""
        result = Profile()
        for field in ("self_cost", "inclusive", "syscalls", "calls"):
            ours, theirs, out = (getattr(p, field) for p in (self, other, result))
            for name in ours.keys() | theirs.keys():
                value = (ours[name] - theirs[name]) / by
                if value:
                    out[name] = value
        return result


def parse(path):
    """A callgrind.out of one process with events Ir and sysCount (Valgrind manual, "Callgrind
    Format Specification"). A function without a name has its object's beside its address."""
    profile, names, objects = Profile(), {}, {}
    function = callee = None
    here = there = ""
    events = []

    def object_of(text):
        number, name = NAME.match(text).groups()
        if name:
            objects[number] = name.rpartition("/")[2]
        return objects[number]

    def name_of(text, place):
        number, name = NAME.match(text).groups()
        if name:
            name = name.split("'")[0]  # f'2 is f again, in a recursion
            names[number] = f"{name} {place}" if name.startswith("0x") else name
        return names[number]

    for line in path.read_text().splitlines():
        if line.startswith("ob="):
            here = object_of(line[3:])
        elif line.startswith("cob="):
            there = object_of(line[4:])
        elif line.startswith("fn="):
            function = name_of(line[3:], here)
        elif line.startswith("cfn="):
            callee = name_of(line[4:], there or here)
            there = ""
        elif line.startswith("calls="):
            profile.calls[callee] += int(line[6:].split()[0])
        elif line.startswith("events:"):
            events = line.split()[1:]
        elif line[:1].isdigit() or line[:1] in "+-*":
            costs = dict(zip(events, map(int, line.split()[1:])))
            count = costs.get("Ir", 0)
            if callee is not None:
                # The line after calls= is what the callee cost from here.
                if callee != function:
                    profile.inclusive[function] += count
                callee = None
                continue
            profile.self_cost[function] += count
            profile.inclusive[function] += count
            profile.syscalls[function] += costs.get("sysCount", 0)
    return profile


def wrap(folder, program):
    """A script that runs `program` under callgrind; the result goes to FOLDER/PID.out."""
    assert shutil.which("valgrind"), "valgrind is not there: tools/deps bench"
    script = folder / "under-callgrind"
    script.write_text(
        "#!/bin/sh\nexec valgrind --tool=callgrind --collect-systime=msec --dump-line=no "
        f"--callgrind-out-file={shlex.quote(str(folder))}/%p.out "
        f"--log-file={shlex.quote(str(folder))}/%p.log {shlex.quote(str(program))} \"$@\"\n")
    os.chmod(script, 0o755)
    return script
