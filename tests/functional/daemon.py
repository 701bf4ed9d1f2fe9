# SPDX-License-Identifier: MIT
"""The daemon under test: started, watched through its log and notifications, ended and judged."""

import itertools
import os
import re
import signal
import socket
import subprocess
import threading
import time

from binary import REDIALD, WRAP
from deadline import deadline, eventually

SANITIZER = re.compile(r"AddressSanitizer|ThreadSanitizer|LeakSanitizer|UndefinedBehavior"
                       r"|runtime error:|^==\d+==")
_EVENT = re.compile(r'(?:^|\s)event=(\S+)((?:\s+[\w.]+=(?:"(?:[^"\\]|\\.)*"|\S*))*)\s*$')
_FIELD = re.compile(r'([\w.]+)=("(?:[^"\\]|\\.)*"|\S*)')
_LEVELS = ("error", "warning", "notice", "info", "debug")
_PRIORITIES = {"3": "error", "4": "warning", "5": "notice", "6": "info", "7": "debug"}
SUPPRESSIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tsan.supp")
_serial = itertools.count()


def children(pid):
    """The ids of the processes that the main thread of another has started, and not waited for."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return [int(word) for word in f.read().split()]


class Line:
    """One line of the log: text, level, event and its fields."""

    def __init__(self, text):
        self.text = text
        self.level = self._level(text)
        match = _EVENT.search(text)
        self.event = match[1] if match else None
        self.fields = {}
        for key, value in _FIELD.findall(match[2]) if match else ():
            self.fields[key] = value[1:-1] if value.startswith('"') else value

    def has(self, fields):
        return all(self.fields.get(key) == str(value) for key, value in fields.items())

    def __getitem__(self, key):
        return self.fields[key]

    def __repr__(self):
        return self.text

    @staticmethod
    def _level(text):
        if match := re.match(r"<(\d)>", text):
            return _PRIORITIES.get(match[1])
        words = text.split(" ", 2)
        return words[1] if len(words) > 1 and words[1] in _LEVELS else None


class Rediald:
    """A rediald of the test's own. A thread reads its stderr, unless the test passes one."""

    def __init__(self, directory, args, *, prefix=(), env=None, stderr=None, preexec=None,
                 pass_fds=()):
        self.lines = []
        self.notifications = []
        self.kept = []  # (name, descriptor)s that it has had the service manager keep
        self.barriers = None  # a list: where its barriers stand, until they are closed; None: they are closed at once
        self.allowed_errors = set()
        self._changed = threading.Condition()
        self._stderr_open = stderr is None
        self._baseline = None
        self.standby = 0
        self._judged = False
        name = f"\0redial-test-{os.getpid()}-{next(_serial)}"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(name)
        environ = {**os.environ, "NOTIFY_SOCKET": "@" + name[1:],
                   "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
                   "TSAN_OPTIONS": f"halt_on_error=0 exitcode=66 suppressions={SUPPRESSIONS}",
                   "UBSAN_OPTIONS": "print_stacktrace=1"}
        environ.pop("JOURNAL_STREAM", None)
        environ.update(env or {})
        self.process = subprocess.Popen(
            [*prefix, *WRAP, REDIALD, *args], cwd=directory, env=environ, preexec_fn=preexec,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr or subprocess.PIPE)
        self.pid = self.process.pid
        threading.Thread(target=self._read_notifications, daemon=True).start()
        if stderr is None:
            self.read_log(self.process.stderr)

    # What it says

    def read_log(self, stream):
        """Collect the lines of stream, a binary file, from a thread of its own."""
        self._stderr_open = True
        threading.Thread(target=self._read_lines, args=(stream,), daemon=True).start()

    def text(self):
        with self._changed:
            return "\n".join(line.text for line in self.lines)

    def mark(self):
        """A place in the log, for since=."""
        with self._changed:
            return len(self.lines)

    def events(self, name, since=0, **fields):
        """The events of that name and with those fields so far."""
        with self._changed:
            return self._matching(name, since, fields)

    def wait_event(self, name, timeout=5, since=0, count=1, **fields):
        """Wait for the event, for count of them; returns the last of these."""
        with self._changed:
            found = []

            def there():
                found[:] = self._matching(name, since, fields)
                return len(found) >= count
            self._wait(there, timeout, f"event={name} {fields} x{count}")
            return found[count - 1]

    def exactly(self, count, name, **fields):
        """Wait for count such events; there must not be more."""
        self.wait_event(name, count=count, **fields)
        found = self.events(name, **fields)
        assert len(found) == count, f"{len(found)} of event={name} {fields}, not {count}\n{self.text()}"
        return found

    def session(self, timeout=5, since=0, count=1, **fields):
        """Wait for the access line of a session."""
        return self.wait_event("session", timeout, since, count, **fields)

    def wait_line(self, pattern, timeout=5, since=0):
        """Wait for a line in which the regular expression is found."""
        with self._changed:
            found = []

            def there():
                found[:] = [line for line in self.lines[since:] if re.search(pattern, line.text)]
                return found
            self._wait(there, timeout, f"a line with {pattern!r}")
            return found[0]

    def wait_notification(self, text, timeout=5, since=0, count=1):
        """Wait for a line of sd_notify(3) that starts with text, for count of them; returns the last of these."""
        with self._changed:
            def there():
                found = [n for n in self.notifications[since:] if n.startswith(text)]
                return found[count - 1:count]
            self._wait(there, timeout, f"notification {text} x{count}")
            return there()[0]

    def mark_notifications(self):
        """A place among the notifications, for since=."""
        with self._changed:
            return len(self.notifications)

    def wait_ready(self, timeout=10):
        self.wait_notification("READY=1", timeout)
        self._baseline = self.descriptors()
        return self

    # What it is

    def descriptors(self):
        """What its descriptors are: a list of such as 'socket:[4711]'."""
        found = []
        directory = f"/proc/{self._real_pid()}/fd"
        for fd in os.listdir(directory):
            try:
                found.append(os.readlink(f"{directory}/{fd}"))
            except FileNotFoundError:
                pass
        return found

    def sockets(self):
        """How many sockets it has open."""
        return sum(link.startswith("socket:") for link in self.descriptors())

    def cpu_seconds(self):
        """The processor time that it has used."""
        with open(f"/proc/{self._real_pid()}/stat", encoding="ascii") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def activity(self):
        """What its threads have done so far: nanoseconds on a processor, and how often each was put on one, together."""
        done = [0, 0]
        tasks = f"/proc/{self._real_pid()}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/schedstat", encoding="ascii") as f:
                ran, _waited, times = map(int, f.read().split())
            done = [done[0] + ran, done[1] + times]
        return tuple(done)

    # Its end

    def signal(self, number):
        self.process.send_signal(number)

    def freeze(self):
        """SIGSTOP, and wait: the threads stop one after the other. Goes on with SIGCONT."""
        self.signal(signal.SIGSTOP)
        eventually(self._is_frozen)

    def wait_exit(self, timeout=10):
        """Wait for its end; returns the exit status."""
        try:
            status = self.process.wait(deadline(timeout))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s\n{self.text()}") from None
        with self._changed:
            self._changed.wait_for(self._has_said_all, deadline(5))
        return status

    def wait_descriptors_back(self):
        """Wait until it has no more descriptors open than when it began, but for standby."""
        most = len(self._baseline) + self.standby
        try:
            eventually(lambda: len(self.descriptors()) <= most, 10)
        except AssertionError:
            raise AssertionError(f"descriptors left: {self.descriptors()}, began with "
                                 f"{self._baseline}\n{self.text()}") from None

    def terminate(self, timeout=15, descriptors=True):
        """SIGTERM, and judge: the descriptors are back, status 0, nothing bad in the log."""
        if self._baseline is not None and descriptors and self.process.poll() is None:
            self.wait_descriptors_back()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        status = self.wait_exit(timeout)
        assert status == 0, f"exit status {status}\n{self.text()}"
        self.judge()

    def judge(self):
        """Nothing in the log that should not be there."""
        self._judged = True
        for line in list(self.lines):
            assert not SANITIZER.search(line.text), f"a sanitizer spoke:\n{self.text()}"
            if line.event not in self.allowed_errors:
                assert line.event != "internal" and "reason=internal" not in line.text, self.text()
            if line.level == "error":
                assert line.event in self.allowed_errors, f"unexpected error: {line}\n{self.text()}"

    def finish(self):
        """The end of a scenario that did not end it otherwise."""
        try:
            if not self._judged and self._baseline is not None:
                self.terminate()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._notify.close()
            while self.kept:
                os.close(self.kept.pop()[1])

    # Inside

    def _matching(self, name, since, fields):
        return [line for line in self.lines[since:] if line.event == name and line.has(fields)]

    def _wait(self, condition, timeout, what):
        end = time.monotonic() + deadline(timeout)
        while not condition():
            left = end - time.monotonic()
            gone = not self._stderr_open and self.process.poll() is not None
            if left <= 0 or gone:
                said = "\n".join(line.text for line in self.lines)
                ended = f", ended with {self.process.poll()}" if gone else ""
                raise AssertionError(f"no {what} in {deadline(timeout):g} s{ended}\n{said}")
            self._changed.wait(min(left, 0.2))

    def _real_pid(self):
        # A wrapper that forks has the daemon as its child.
        found = children(self.pid) if WRAP else []
        return found[0] if found else self.pid

    def _keep(self, lines, fds):
        """As the file descriptor store of systemd does."""
        names = [line.removeprefix("FDNAME=") for line in lines if line.startswith("FDNAME=")]
        if "FDSTOREREMOVE=1" in lines:
            for entry in [entry for entry in self.kept if entry[0] == names[0]]:
                self.kept.remove(entry)
                os.close(entry[1])
        elif "FDSTORE=1" in lines:
            self.kept += [(names[0], fd) for fd in fds]
        elif self.barriers is not None:
            self.barriers += fds
        else:
            for fd in fds:
                os.close(fd)

    def _has_said_all(self):
        """A process that goes on in its place keeps stderr open."""
        return not self._stderr_open or (self._matching("upgraded", 0, {}) and
                                         self._matching("stopped", 0, {}))

    def _is_frozen(self):
        tasks = f"/proc/{self._real_pid()}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/stat", encoding="ascii") as f:
                if f.read().rpartition(")")[2].split()[0] != "T":
                    return False
        return True

    def _read_lines(self, stream):
        for raw in iter(stream.readline, b""):
            with self._changed:
                self.lines.append(Line(raw.decode("utf-8", "backslashreplace").rstrip("\n")))
                self._changed.notify_all()
        with self._changed:
            self._stderr_open = False
            self._changed.notify_all()

    def _read_notifications(self):
        while True:
            try:
                message, fds, _flags, _address = socket.recv_fds(self._notify, 4096, 16)
            except OSError:
                return
            lines = message.decode().splitlines()
            with self._changed:
                self._keep(lines, fds)
                self.notifications += lines
                self._changed.notify_all()
