# SPDX-License-Identifier: MIT
"""The lists of clauses: what an RFC demands of us, in our own words, one file an RFC.

A file `rfc9112.clauses` reads

    # a comment
    title: HTTP/1.1
    2.2-1 MUST NOT  A sender makes no bare CR outside content.
    2.2-2 MAY       Something that is left to us,
                    told on as many indented lines as it takes.
        not covered: why no test can show it.

An id is the section, a hyphen and a number of our own that never changes once given. A test names
what it shows with `@pytest.mark.clause("9112:2.2-1", …)`, where 9112 comes from the file's name;
of a document that is no RFC the whole name is used (`openssh-strict:1-1`). A
clause without a test has a line `not covered:`, or `not ours:` when it binds a role that no part of
culvert plays; the latter are not counted.
"""
import re
from pathlib import Path

LEVELS = ("MUST NOT", "MUST", "SHOULD NOT", "SHOULD", "MAY", "SAYS")
CLAUSE = re.compile(r"(?P<id>[\w.]+-\d+)\s+(?P<level>%s)\s+(?P<text>\S.*)" % "|".join(LEVELS))
REASON = re.compile(r"\s+(?P<kind>not covered|not ours):\s*(?P<text>\S.*)")


class Clause:
    def __init__(self, key, level, text):
        self.key = key
        self.level = level
        self.text = text
        self.reason = ""
        self.is_ours = True


class Rfc:
    """One file: its clauses in order, by key (`9112:2.2-1`)."""

    def __init__(self, path):
        self.path = path
        number = re.search(r"^rfc(\d+)$", path.stem)
        self.number = number[1] if number else path.stem
        self.name = f"RFC {self.number}" if number else self.number
        self.title = ""
        self.clauses = {}
        clause, is_reason = None, False
        for count, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.name}:{count}"
            if not line.strip() or line.startswith("#"):
                continue
            if line.startswith("title:"):
                self.title = line.partition(":")[2].strip()
                continue
            if found := REASON.match(line):
                if clause is None or clause.reason:
                    raise ValueError(f"{where}: a reason, but for which clause?")
                clause.reason, clause.is_ours = found["text"], found["kind"] == "not covered"
                is_reason = True
            elif line[0].isspace():
                if clause is None:
                    raise ValueError(f"{where}: goes on with nothing")
                if is_reason:
                    clause.reason += " " + line.strip()
                else:
                    clause.text += " " + line.strip()
            elif found := CLAUSE.fullmatch(line):
                key, is_reason = f"{self.number}:{found['id']}", False
                if key in self.clauses:
                    raise ValueError(f"{where}: {key} a second time")
                clause = self.clauses[key] = Clause(key, found["level"], found["text"])
            else:
                raise ValueError(f"{where}: not a clause: {line}")

    @property
    def ours(self):
        return [clause for clause in self.clauses.values() if clause.is_ours]

    def summary(self, outcomes):
        """Lines for the end of a run. `outcomes`: key → set of "passed", "failed", "skipped"."""
        good = {"passed"}
        covered = [c for c in self.ours if outcomes.get(c.key, set()) == good]
        lines = [f"{self.name} ({self.title}): {len(covered)} of {len(self.ours)} clauses "
                 f"covered, {len(self.clauses) - len(self.ours)} more are not ours"]
        for clause in self.ours:
            got = outcomes.get(clause.key, set())
            if got == good:
                continue
            why = "; ".join(sorted(got - good)) or clause.reason or "no test of this run shows it"
            lines.append(f"    not covered: §{clause.key.partition(':')[2]} ({why})")
        return lines


def load(folder=Path(__file__).parent):
    """All lists below the folder."""
    return [Rfc(path) for path in sorted(folder.rglob("*.clauses"))]
