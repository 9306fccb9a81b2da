# SPDX-License-Identifier: MIT
"""A reader of Grafana Alloy's configuration syntax, enough to hold a file against the documented
blocks, arguments and exports of the components that it uses."""
import re

TOKEN = re.compile(r"""
    (?P<space>[ \t\r]+|//[^\n]*|/\*.*?\*/)
  | (?P<newline>\n)
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<number>\d+(?:\.\d+)?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<mark>[{}\[\]().,=])
""", re.X | re.S)


class Fault(Exception):
    pass


class Block:
    def __init__(self, name, label, line):
        self.name, self.label, self.line = name, label, line
        self.arguments = {}
        self.blocks = []

    def each(self):
        """All values in it, those of inner blocks too."""
        for value in self.arguments.values():
            yield from leaves(value)
        for block in self.blocks:
            yield from block.each()


class Reference(str):
    """`loki.process.culvert.receiver`"""


class Call:
    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments


def leaves(value):
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    else:
        yield value


class Parser:
    def __init__(self, text):
        self.tokens, line, at = [], 1, 0
        while at < len(text):
            match = TOKEN.match(text, at)
            if not match:
                raise Fault(f"line {line}: {text[at]!r}")
            if match.lastgroup != "space":
                self.tokens.append((match.lastgroup, match.group(), line))
            line += match.group().count("\n")
            at = match.end()
        self.tokens.append(("end", "", line))
        self.at = 0

    def peek(self):
        return self.tokens[self.at]

    def take(self, kind=None, text=None):
        got = self.tokens[self.at]
        if (kind and got[0] != kind) or (text and got[1] != text):
            raise Fault(f"line {got[2]}: {got[1]!r} where {text or kind} should be")
        self.at += 1
        return got[1]

    def skip_lines(self):
        while self.peek()[0] == "newline":
            self.at += 1

    def dotted(self):
        name = self.take("name")
        while self.peek()[1] == ".":
            self.take()
            name += "." + self.take("name")
        return name

    def body(self, block, end):
        self.skip_lines()
        while self.peek()[1] != end or self.peek()[0] not in ("mark", "end"):
            line, name = self.peek()[2], self.dotted()
            if self.peek()[1] == "=":
                self.take()
                if name in block.arguments:
                    raise Fault(f"line {line}: {name} twice")
                block.arguments[name] = self.value()
            else:
                label = self.take("string")[1:-1] if self.peek()[0] == "string" else None
                self.take("mark", "{")
                inner = Block(name, label, line)
                self.body(inner, "}")
                self.take("mark", "}")
                block.blocks.append(inner)
            if self.peek()[0] not in ("newline", "end") and self.peek()[1] != end:
                raise Fault(f"line {self.peek()[2]}: {self.peek()[1]!r} after {name}")
            self.skip_lines()

    def items(self, end, one):
        found = []
        self.skip_lines()
        while self.peek()[1] != end:
            found.append(one())
            if self.peek()[1] == ",":
                self.take()
                self.skip_lines()
            elif self.peek()[1] != end:
                raise Fault(f"line {self.peek()[2]}: a comma should be before a line's end")
        self.take("mark", end)
        return found

    def pair(self):
        kind, text, line = self.peek()
        if kind not in ("string", "name"):
            raise Fault(f"line {line}: {text!r} is no key")
        self.take()
        self.take("mark", "=")
        return text.strip('"'), self.value()

    def value(self):
        kind, text, line = self.peek()
        if kind == "string":
            return self.take()[1:-1]
        if kind == "number":
            return float(self.take())
        if text == "[":
            self.take()
            return self.items("]", self.value)
        if text == "{":
            self.take()
            return dict(self.items("}", self.pair))
        if kind != "name":
            raise Fault(f"line {line}: {text!r} is no value")
        name = self.dotted()
        if self.peek()[1] == "(":
            self.take()
            return Call(name, self.items(")", self.value))
        return {"true": True, "false": False, "null": None}.get(name, Reference(name))


def parse(text):
    parser = Parser(text)
    top = Block("", None, 0)
    parser.body(top, "")
    parser.take("end")
    return top


# As Alloy's reference has them: required arguments, others, inner blocks, what it exports.
STAGES = {
    "stage.json": ({"expressions"}, {"source", "drop_malformed"}, {}),
    "stage.timestamp": ({"source", "format"},
                        {"action_on_failure", "fallback_formats", "location"}, {}),
    "stage.labels": ({"values"}, set(), {}),
    "stage.structured_metadata": (set(), {"values"}, {}),
    "stage.limit": ({"rate", "burst"}, {"drop", "by_label_name", "max_distinct_labels"}, {}),
}
RULE = (set(), {"source_labels", "target_label", "regex", "replacement", "action", "separator",
                "modulus"}, {})
COMPONENTS = {
    "local.file_match": (({"path_targets"}, {"sync_period", "ignore_older_than"}, {}),
                         {"targets"}),
    "loki.source.file": (({"targets", "forward_to"}, {"encoding", "tail_from_end",
                                                      "legacy_positions_file"}, {}), set()),
    "loki.source.journal": (({"forward_to"}, {"matches", "max_age", "relabel_rules", "labels",
                                              "path", "format_as_json", "use_incoming_timestamp"},
                             {}), set()),
    "loki.relabel": (({"forward_to"}, {"max_cache_size"}, {"rule": RULE}), {"receiver", "rules"}),
    "loki.process": (({"forward_to"}, set(), STAGES), {"receiver"}),
    "loki.write": ((set(), {"external_labels", "max_streams"},
                    {"endpoint": ({"url"}, {"name", "headers", "tenant_id", "batch_size",
                                            "batch_wait", "bearer_token_file"}, {})}),
                   {"receiver"}),
}


def check(top):
    """What is wrong with a parsed file, as texts."""
    faults, exports = [], set()

    def hold(block, shape):
        required, optional, inner = shape
        given = set(block.arguments)
        faults.extend(f"line {block.line}: {block.name} needs {n}" for n in required - given)
        faults.extend(f"line {block.line}: {block.name} has no {n}"
                      for n in given - required - optional)
        for child in block.blocks:
            if child.name in inner:
                hold(child, inner[child.name])
            else:
                faults.append(f"line {child.line}: {block.name} has no block {child.name}")

    seen = set()
    for block in top.blocks:
        if block.name not in COMPONENTS or not block.label:
            faults.append(f"line {block.line}: {block.name} is no component")
            continue
        if (block.name, block.label) in seen:
            faults.append(f"line {block.line}: {block.name} {block.label} twice")
        seen.add((block.name, block.label))
        shape, names = COMPONENTS[block.name]
        hold(block, shape)
        exports |= {f"{block.name}.{block.label}.{name}" for name in names}
    for value in top.each():
        if isinstance(value, Reference) and value not in exports:
            faults.append(f"{value} is exported by nothing")
        if isinstance(value, Call) and value.function not in ("sys.env", "env"):
            faults.append(f"{value.function}() is not known here")
    return faults
