# SPDX-License-Identifier: MIT
"""Server programs that tests start, as their own users where they refuse root."""

import glob
import os
import pwd
import shutil
import signal
import subprocess

import pytest

from deadline import deadline, eventually, pass_time
from netns import is_real_root
from sockets import is_refused

PATHS = os.pathsep.join(["/usr/bin", "/usr/sbin", *sorted(glob.glob("/usr/lib/postgresql/*/bin"))])


def program(name):
    """Its path; the test is skipped where it is not installed."""
    path = shutil.which(name, path=PATHS)
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


def run(*argv, timeout=60, **kwargs):
    """Run to the end; returns what it printed, fails with that when it fails."""
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, check=False, text=True,
                            timeout=deadline(timeout), **kwargs)
    assert result.returncode == 0, f"{argv}: {result.returncode}\n{result.stdout}"
    return result.stdout


def run_anyhow(*argv):
    """Run to the end, well or not; returns what it printed."""
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          text=True, stdin=subprocess.DEVNULL, timeout=deadline(60)).stdout


class Program:
    """A server program in the foreground: started, stopped, started again."""

    def __init__(self, argv, address, log, **kwargs):
        self._argv, self._address, self._log, self._kwargs = argv, address, log, kwargs
        self._process = None

    def start(self):
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log, **self._kwargs)

    def wait_listening(self):
        eventually(lambda: not is_refused(self._address), 20, f"{self._argv[0]} listens")

    def stop(self, number=signal.SIGTERM):
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(deadline(20))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self, away, number=signal.SIGTERM):
        """Stop, and come back after so many seconds."""
        self.stop(number)
        pass_time(away)
        self.start()


def is_user(name):
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def own_by(user, directory):
    """Give a directory, and the way to it, to user."""
    info = pwd.getpwnam(user)
    directory.mkdir(exist_ok=True)
    os.chown(directory, info.pw_uid, info.pw_gid)
    for parent in directory.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o711)


def as_user(user, directory):
    """What to put before a command line that is to run as user, who gets directory; skips where that cannot be."""
    if not is_real_root():
        pytest.skip(f"the server refuses root, and this root cannot become {user}")
    if not is_user(user):
        pytest.skip(f"the server refuses root, and there is no user {user}")
    own_by(user, directory)
    return [program("setpriv"), f"--reuid={user}", f"--regid={user}", "--clear-groups"]


def postgresql(launch, tmp_path, port, *settings):
    """One that trusts everybody; settings as in "fsync=off"."""
    initdb, postgres = program("initdb"), program("postgres")
    data = tmp_path / "pg"
    drop = as_user("postgres", data)
    run(*drop, initdb, "-D", str(data / "db"), "-A", "trust", "-U", "postgres", "--no-sync",
        "--locale=C", cwd="/")
    words = ["listen_addresses=127.0.0.1", f"unix_socket_directories={data}", "fsync=off",
             *settings]
    argv = [*drop, postgres, "-D", str(data / "db"), "-p", str(port)]
    return launch([*argv, *(word for setting in words for word in ("-c", setting))],
                  f"127.0.0.1:{port}", cwd="/")


def sshd(launch, tmp_path, port, more=""):
    """One that lets us in with the key of ssh_options()."""
    daemon, keygen = program("sshd"), program("ssh-keygen")
    if not is_real_root():
        pytest.skip("sshd wants to become other users")
    for name in ("host", "user"):
        run(keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized")
    config = tmp_path / "sshd_config"
    config.write_text(f"""
ListenAddress 127.0.0.1:{port}
HostKey {tmp_path}/host
AuthorizedKeysFile {tmp_path}/authorized
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
Subsystem sftp internal-sftp
{more}
""")
    ensure_privilege_separation()
    return launch([daemon, "-D", "-e", "-f", str(config)], f"127.0.0.1:{port}")


def me():
    """Our own name, as sshd knows it."""
    return pwd.getpwuid(os.geteuid()).pw_name


def ssh_options(tmp_path):
    """For ssh and scp to such a one."""
    return ["-q", "-i", str(tmp_path / "user"), "-F", "none", "-o", "StrictHostKeyChecking=no",
            "-o", f"UserKnownHostsFile={tmp_path}/known", "-o", "IdentitiesOnly=yes",
            "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]


def ensure_privilege_separation():
    """sshd wants /run/sshd, which nobody has made where systemd does not run it."""
    try:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    except OSError as err:
        pytest.skip(f"sshd needs /run/sshd: {err}")


def haproxy(launch, tmp_path, text, address):
    """haproxy of that configuration."""
    config = tmp_path / "haproxy.cfg"
    config.write_text(f"defaults\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n{text}")
    return launch([program("haproxy"), "-db", "-f", str(config)], address)
