# SPDX-License-Identifier: MIT
"""A strict reader of what Prometheus reads: text format 0.0.4 and OpenMetrics 1.0.0, by the grammar
of their specifications. What they forbid is an AssertionError."""
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABELS = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')
NUMBER = r"(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]Inf|NaN)"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*?)\}})? ({NUMBER})( # .*)?$")
EXEMPLAR = re.compile(rf' # \{{(trace_id="[0-9a-f]{{32}}")\}} ({NUMBER}) \d+(?:\.\d+)?$')
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count"),
            "gauge": ("",), "counter": ("",)}


def labels_of(text):
    labels = {}
    for name, value in LABELS.findall(text or ""):
        assert name not in labels, f"{name} twice"
        labels[name] = value
    rest = LABELS.sub("", text or "").strip(",")
    assert not rest, f"no labels: {text}"
    return labels


class Page:
    """families: name → (type, help, unit); samples: (name, frozenset of labels) → number."""

    def __init__(self, text, is_open=False):
        self.families, self.samples, self.exemplars = {}, {}, {}
        self.is_open = is_open
        assert text.endswith("# EOF\n" if is_open else "\n")
        lines = text.split("\n")[:-2 if is_open else -1]
        self.now, done = None, set()
        for line in lines:
            assert line and line == line.strip(), repr(line)
            if line.startswith("#"):
                _, word, name, rest = line.split(" ", 3)
                if name != self.now:
                    assert name not in done, f"{name} comes in two places"
                    done.add(name)
                    self.now = name
                family = self.families.setdefault(name, {})
                assert word in (("HELP", "TYPE", "UNIT") if is_open else ("HELP", "TYPE"))
                assert word not in family
                family[word] = rest
                continue
            self._sample(line)
        self._histograms()

    def _sample(self, line):
        match = SAMPLE.match(line)
        assert match, f"no sample: {line}"
        name, labels, number, exemplar = match.groups()
        kind = self.families[self.now]["TYPE"]
        suffixes = ("_total",) if kind == "counter" and self.is_open else SUFFIXES[kind]
        assert any(name == self.now + suffix for suffix in suffixes), f"{name} in {self.now}"
        if "UNIT" in self.families[self.now]:
            assert self.now.endswith("_" + self.families[self.now]["UNIT"])
        key = (name, frozenset(labels_of(labels).items()))
        assert key not in self.samples, f"twice: {line}"
        self.samples[key] = float(number.replace("Inf", "inf"))
        if kind == "counter":
            assert self.samples[key] >= 0
        if exemplar:
            found = EXEMPLAR.match(exemplar)
            assert self.is_open and name.endswith("_bucket") and found, line
            self.exemplars[key] = (labels_of(found[1])["trace_id"], float(found[2]))

    def _histograms(self):
        for name, family in self.families.items():
            if family["TYPE"] != "histogram":
                continue
            series = {}
            for (sample, labels), value in self.samples.items():
                if sample == name + "_bucket":
                    rest = dict(labels)
                    bound = float(rest.pop("le").replace("Inf", "inf"))
                    series.setdefault(frozenset(rest.items()), []).append((bound, value))
            assert series, name
            for labels, buckets in series.items():
                bounds, counts = zip(*buckets, strict=True)
                assert list(bounds) == sorted(set(bounds)) and bounds[-1] == float("inf")
                assert list(counts) == sorted(counts)
                assert counts[-1] == self.samples[(name + "_count", labels)]
                assert (name + "_sum", labels) in self.samples

    def __getitem__(self, name):
        """The one sample of this name, or the sum of all."""
        found = [value for (sample, _), value in self.samples.items() if sample == name]
        assert found, f"{name} is not on the page"
        return sum(found)

    def get(self, name, **labels):
        """The sum of the samples that have these labels among theirs."""
        want = set(labels.items())
        found = [value for (sample, has), value in self.samples.items()
                 if sample == name and want <= has]
        assert found, f"{name}{labels} is not on the page"
        return sum(found)

    def values(self, name, label):
        return {dict(labels)[label] for sample, labels in self.samples
                if sample == name and label in dict(labels)}


def read(response, is_open=False):
    assert response.status == 200
    assert response.get("Content-Type") == (OPEN if is_open else TEXT)
    return Page(response.body.decode(), is_open)
