# SPDX-License-Identifier: MIT
"""What the figures were measured on and with."""

import os
import re
import subprocess
import time

from account import read

PACKAGES = ("iperf3", "haproxy", "nginx", "systemd", "rinetd", "socat")


def _first_line(*command, cwd=None):
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=False, cwd=cwd
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout + done.stderr).splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else None


def _distribution():
    try:
        found = re.search(r'^PRETTY_NAME="?([^"\n]*)', read("/etc/os-release"), re.M)
    except OSError:
        found = None
    return found[1] if found else "unknown"


def describe(top, congestion_control):
    """Facts by name, in the order in which to tell them."""
    cpu = re.search(r"^model name\s*:\s*(.*)", read("/proc/cpuinfo"), re.M)
    memory = int(re.search(r"^MemTotal:\s+(\d+)", read("/proc/meminfo"), re.M)[1])
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "cpu": cpu[1] if cpu else os.uname().machine,
        "cores": os.cpu_count(),
        "memory": f"{memory / 2**20:.0f} GiB",
        "kernel": os.uname().release,
        "system": _distribution(),
        "congestion control": congestion_control,
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "redial": _first_line("git", "describe", "--always", "--dirty", cwd=top),
        "compiler": _first_line("cc", "--version"),
    }
    for name in PACKAGES:
        facts[name] = _first_line("dpkg-query", "-W", "-f", "${Version}", name)
    return {name: fact for name, fact in facts.items() if fact is not None}
