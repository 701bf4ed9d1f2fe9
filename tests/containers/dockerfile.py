# SPDX-License-Identifier: MIT
"""The Dockerfile and what .dockerignore leaves of the tree, read as an engine reads them."""

import json
import os
import re
import shlex


class Stage:
    """FROM base AS name, and its instructions: (word, rest of the line)."""

    def __init__(self, base, name):
        self.base = base
        self.name = name
        self.instructions = []

    def all(self, word):
        return [rest for found, rest in self.instructions if found == word]

    def last(self, word):
        """What holds in the end, or None."""
        return (self.all(word) or [None])[-1]

    def arguments(self, word):
        """The last one of that word as a list: the exec form, which needs no shell."""
        return json.loads(re.search(r"\[.*\]$", self.last(word))[0])


class Copy:
    """A COPY instruction."""

    def __init__(self, rest):
        words = shlex.split(rest)
        options = dict(w[2:].split("=", 1) for w in words if w.startswith("--"))
        paths = [w for w in words if not w.startswith("--")]
        self.stage = options.get("from")
        self.owner = options.get("chown")
        self.sources, self.target = paths[:-1], paths[-1]


def stages(path):
    """The stages of a Dockerfile, in their order."""
    with open(path, encoding="utf-8") as f:
        text = "".join(line for line in f if not line.startswith("#"))
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _as, name = rest.split()
            found.append(Stage(base, name))
        elif found and word:
            found[-1].instructions.append((word, rest.strip()))
    return found


def _expression(pattern):
    """A pattern of .dockerignore, for paths; what is below a match matches as well."""
    parts = []
    for piece in re.split(r"(\*\*/|\*|\[[^]]*\])", pattern):
        parts.append({"**/": "(?:.*/)?", "*": "[^/]*"}.get(piece)
                     or (piece if piece.startswith("[") else re.escape(piece)))
    return re.compile("".join(parts) + "(?:/.*)?$")


class Ignore:
    """is_sent(path): does the tree that is sent to the engine hold it? The last pattern that matches decides."""

    def __init__(self, path):
        self._rules = []
        with open(path, encoding="utf-8") as f:
            for line in map(str.strip, f):
                if line and not line.startswith("#"):
                    self._rules.append((line.startswith("!"), _expression(line.lstrip("!"))))

    def is_sent(self, path):
        sent = True
        for includes, expression in self._rules:
            if expression.match(path):
                sent = includes
        return sent

    def context(self, top):
        """All files that are sent, relative to top."""
        found = []
        for directory, names, files in os.walk(top):
            below = os.path.relpath(directory, top)
            names[:] = [n for n in names if n != ".git"]
            found += [os.path.normpath(f"{below}/{name}") for name in files]
        return [path for path in found if self.is_sent(path)]
