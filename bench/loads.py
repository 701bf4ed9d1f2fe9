# SPDX-License-Identifier: MIT
"""The servers behind the proxy and the loads before it: bench/load, and iperf3 for bulk."""

import contextlib
import json
import os
import subprocess

from proxy import Failed, wait_listening

ANSWERS_PORT, BULK_PORT, RECOVER_PORT = 5001, 5002, 5003


def _pinned(cpu):
    return None if cpu is None else lambda: os.sched_setaffinity(0, {cpu})


def _run(command, seconds, cpu):
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            preexec_fn=_pinned(cpu),
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{os.path.basename(command[0])} did not end within {seconds:g} s") from None
    if done.returncode != 0 and not done.stdout.startswith("{"):
        raise Failed(
            f"{os.path.basename(command[0])}: {(done.stderr + done.stdout).strip()[-300:]}"
        )
    return json.loads(done.stdout)


class Loads:
    """Both servers, for as long as it is entered, and the clients.

    ports: so many, from ANSWERS_PORT on, lead to the server that answers.
    """

    def __init__(self, load, cpu=None, has_bulk=True, ports=1):
        self._load, self._cpu, self._has_bulk, self._ports = load, cpu, has_bulk, ports
        self._answers = self._bulk = None

    def __enter__(self):
        self._answers = self._start(
            [self._load, "serve", str(ANSWERS_PORT), "-n", str(self._ports)], ANSWERS_PORT
        )
        if self._has_bulk:
            self._start_bulk()
        return self

    def __exit__(self, *_exc):
        for process in filter(None, (self._answers, self._bulk)):
            process.kill()
            process.wait()

    def requests(
        self,
        port,
        *,
        new_connections=False,
        clients=64,
        request=64,
        answer=64,
        seconds=3.0,
        warm_up=0.3,
    ):
        mode = "crr" if new_connections else "rr"
        return _run(
            [
                self._load,
                mode,
                str(port),
                "-c",
                str(clients),
                "-q",
                str(request),
                "-s",
                str(answer),
                "-d",
                str(seconds),
                "-w",
                str(warm_up),
            ],
            seconds + 30,
            self._cpu,
        )

    def bulk(self, port, *, streams=1, seconds=3):
        """iperf3's sums of what was received: bytes and bits_per_second."""
        try:
            said = _run(
                [
                    "iperf3",
                    "-c",
                    "127.0.0.1",
                    "-p",
                    str(port),
                    "-t",
                    str(max(1, round(seconds))),
                    "-P",
                    str(streams),
                    "-J",
                ],
                seconds + 30,
                self._cpu,
            )
            received = said.get("end", {}).get("sum_received") or {}
            if said.get("error") or not received.get("bytes"):
                raise Failed("iperf3: " + said.get("error", "nothing was received"))
            return received
        except Failed:
            self._bulk.kill()  # it serves one test at a time, and may still be in this one
            self._bulk.wait()
            self._start_bulk()
            raise

    def recover(self, port, *, clients, outage, patience=30):
        return _run(
            [
                self._load,
                "recover",
                str(port),
                "-l",
                str(RECOVER_PORT),
                "-c",
                str(clients),
                "-o",
                str(outage),
                "-t",
                str(patience),
            ],
            outage + patience + 30,
            self._cpu,
        )

    @contextlib.contextmanager
    def idle(self, port, sessions, at_once):
        """Hold so many sessions that have asked once; the body runs when they all are there."""
        process = subprocess.Popen(
            [
                self._load,
                "idle",
                str(port),
                "-c",
                str(sessions),
                "-b",
                str(at_once),
                "-q",
                "1024",
                "-s",
                "1024",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if process.stdout.readline() != "READY\n":
                raise Failed("idle: " + process.stderr.read().strip())
            yield
        finally:
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    def _start(self, command, port):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_pinned(self._cpu),
        )
        wait_listening(port)
        return process

    def _start_bulk(self):
        self._bulk = self._start(["iperf3", "-s", "-p", str(BULK_PORT)], BULK_PORT)
