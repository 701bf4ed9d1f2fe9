# SPDX-License-Identifier: MIT
"""The text format of Prometheus: read, and held to its rules."""

import re

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)\Z")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|\Z)')
_TYPES = ("counter", "gauge", "histogram")


def _labels(text):
    found, at = {}, 0
    while at < len(text or ""):
        match = _LABEL.match(text, at)
        assert match, f"cannot read the labels {text!r}"
        assert match[1] not in found, f"{match[1]} stands twice in {text!r}"
        found[match[1]] = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), match[2])
        at = match.end()
    return found


class Metrics:
    """What was scraped: the value of a metric by its name and labels."""

    def __init__(self, text):
        assert text.endswith("\n")
        self.types, self.helps, self.labels, self._values = {}, {}, {}, {}
        family = None
        for line in text[:-1].split("\n"):
            if line.startswith("# HELP "):
                family, help_ = line[7:].split(" ", 1)
                assert family not in self.helps, f"{family} comes twice"
                assert _NAME.match(family) and help_
                self.helps[family] = help_
            elif line.startswith("# TYPE "):
                name, type_ = line[7:].split(" ")
                assert name == family and name not in self.types and type_ in _TYPES
                self.types[name] = type_
            else:
                self._sample(family, line)
        for name, type_ in self.types.items():
            assert (type_ == "counter") == name.endswith("_total"), name
            if type_ == "histogram":
                self._check_histogram(name)

    def _sample(self, family, line):
        match = _SAMPLE.match(line)
        assert match and family, f"cannot read {line!r}"
        name, labels, value = match[1], _labels(match[2]), float(match[3])
        suffixes = ("_bucket", "_sum", "_count") if self.types[family] == "histogram" else ("",)
        assert name in {family + suffix for suffix in suffixes}, f"{name} stands below {family}"
        key = name, frozenset(labels.items())
        assert key not in self._values, f"{line} comes twice"
        self._values[key] = value
        names = frozenset(labels) - {"le"}
        assert self.labels.setdefault(family, names) == names, f"{family} has other labels before"

    def _check_histogram(self, name):
        series = {}
        for (sample, labels), value in self._values.items():
            if sample == name + "_bucket":
                rest = frozenset(item for item in labels if item[0] != "le")
                series.setdefault(rest, []).append((float(dict(labels)["le"]), value))
        for rest, buckets in series.items():
            assert buckets == sorted(buckets) and buckets[-1][0] == float("inf")
            assert [count for _, count in buckets] == sorted(count for _, count in buckets)
            assert buckets[-1][1] == self._values[name + "_count", rest]
            assert self._values[name + "_sum", rest] >= 0

    def __call__(self, name, **labels):
        """The sum of all values with that name and these labels."""
        wanted = set(labels.items())
        found = [value for (sample, has), value in self._values.items()
                 if sample == "redial_" + name and wanted <= has]
        assert found, f"there is no {name} with {labels}"
        return sum(found)
