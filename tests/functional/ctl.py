# SPDX-License-Identifier: MIT
"""redialctl under test: in a pipe, and in a terminal that tmux makes."""

import os
import shutil
import subprocess
import tempfile

import pytest

from binary import REDIALD, WRAP
from daemon import SANITIZER
from deadline import deadline, eventually

REDIALCTL = os.environ.get("REDIALCTL") or os.path.join(os.path.dirname(REDIALD), "redialctl")
# What would change its answers comes from the test alone.
_UNSET = ("REDIAL_ADMIN", "RUNTIME_DIRECTORY", "NO_COLOR", "COLUMNS", "LINES", "LC_CTYPE", "LANG",
          "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def environment(env=None):
    """Ours, without what redialctl heeds; and these variables."""
    environ = {key: value for key, value in os.environ.items() if key not in _UNSET}
    return {**environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(env or {})}


class Result:
    """What a run of redialctl came to."""

    def __init__(self, process):
        self.status = process.returncode
        self.out = (process.stdout or b"").decode()
        self.err = process.stderr.decode()
        assert not SANITIZER.search(self.out + self.err), self.err

    def __repr__(self):
        return f"status {self.status}\n{self.out}\n{self.err}"


def redialctl(*args, socket=None, env=None, prefix=(), stdout=subprocess.PIPE, program=REDIALCTL,
              **kwargs):
    """Run it, with its output in a pipe; socket: as REDIAL_ADMIN."""
    environ = environment(env)
    if socket:
        environ["REDIAL_ADMIN"] = socket
    return Result(subprocess.run(
        [*prefix, *WRAP, program, *map(str, args)], env=environ, stdin=subprocess.DEVNULL,
        stdout=stdout, stderr=subprocess.PIPE, timeout=deadline(60), check=False, **kwargs))


def redialctl_of(user, *args, **kwargs):
    """Run it as that user, for whom the build may be out of reach: a copy."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        copy = shutil.copy(REDIALCTL, directory)
        return redialctl(*args, program=copy, user=user, cwd="/", **kwargs)


class Terminal:
    """A shell in a terminal of that size."""

    def __init__(self, directory, width=80, height=24, env=None):
        tmux = shutil.which("tmux")
        if not tmux:
            pytest.skip("tmux is not there")
        self._tmux = [tmux, "-u", "-S", str(directory / "tmux.sock"), "-f", "/dev/null"]
        # The leak checker spins for ever in a process whose terminal has gone; in pipes it is on.
        environ = environment({"redialctl": REDIALCTL, "ASAN_OPTIONS": "detect_leaks=0",
                               **(env or {})})
        for name in ("TMUX", "TMUX_PANE"):
            environ.pop(name, None)
        rc = directory / "bashrc"
        rc.write_text("PS1='ready$ '\n", encoding="ascii")
        subprocess.run([*self._tmux, "new-session", "-d", "-x", str(width), "-y", str(height),
                        f"bash --rcfile {rc} -i"], env=environ, check=True)
        self.wait("ready$")

    def close(self):
        subprocess.run([*self._tmux, "kill-server"], check=False, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()

    def type(self, *keys):
        """Keys by tmux's names: `q', `C-c', `Enter'."""
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def run(self, line):
        """Type a line."""
        self.type(line, "Enter")

    def resize(self, width, height):
        subprocess.run([*self._tmux, "resize-window", "-x", str(width), "-y", str(height)], check=True)

    def screen(self, colours=False):
        """The lines of the screen, without the blanks at their ends."""
        argv = [*self._tmux, "capture-pane", "-p", *(["-e"] if colours else [])]
        text = subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout.decode()
        # tmux sets the default background, too, where it ends another attribute.
        return [line.rstrip() for line in text.replace("\x1b[49m", "").splitlines()]

    def wait(self, text, colours=False):
        """Wait until a line of the screen has text in it; returns the screen."""
        found = []

        def look():
            found[:] = self.screen(colours)
            return any(text in line for line in found)

        try:
            eventually(look, 10)
        except AssertionError:
            raise AssertionError(f"no {text!r} on the screen:\n" + "\n".join(found)) from None
        return found

    def wait_gone(self, text):
        """Wait until no line has text in it; returns the screen."""
        eventually(lambda: not any(text in line for line in self.screen()), 10, f"{text!r} is gone")
        return self.screen()
