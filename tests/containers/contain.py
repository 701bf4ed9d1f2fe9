#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""contain.py SPECIFICATION: run a program as an engine of containers does, from a directory that holds an image.

In user, mount, PID, network, IPC, UTS and control group namespaces of its own; as PID 1, as one user alone, with no capabilities, in a root
that is the image. What there is to be said, as JSON, is in argv[1]:

    root       the image; places to mount on exist in it
    read_only  is the root?
    mounts     [source, target] to bind, read-only; source "tmpfs:OPTIONS" for a file system in memory
    proc       "readonly": /proc, and /proc/sys in it read-only; "masked": /proc without /proc/sys; "none"
    uid        user and group
    closed     descriptors to be closed
    nofile     the limit of descriptors, or null
    argv, env  the program

It talks on descriptor `control': says "unshared", waits for a byte, says the program's PID, and ends as the program ends.
"""

import ctypes
import json
import os
import resource
import sys

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SIGKILL = 9
LAST_CAP = 40

_libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    if getattr(_libc, name)(*args) != 0:
        err = ctypes.get_errno()
        raise OSError(err, f"{name}{args}: {os.strerror(err)}")


def mount(source, target, kind=None, flags=0, options=None):
    texts = [text and text.encode() for text in (source, target, kind)]
    call("mount", *texts, ctypes.c_ulong(flags), options and options.encode())


def make_read_only(target):
    """Flags of the mount below cannot be taken back in a user namespace: they stay."""
    kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount(None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def mount_proc(how, root, owner):
    if how == "none":
        return
    proc = f"{root}/proc"
    mount("proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if how == "masked":
        mount("tmpfs", f"{proc}/sys", "tmpfs", MS_RDONLY, owner)
    else:
        mount(f"{proc}/sys", f"{proc}/sys", None, MS_BIND | MS_REC)
        make_read_only(f"{proc}/sys")


def make_root(spec):
    root, owner = spec["root"], f"uid={spec['uid']},gid={spec['uid']}"
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount(root, root, None, MS_BIND | MS_REC)
    for source, target in spec["mounts"]:
        if source.startswith("tmpfs:"):
            options = source[len("tmpfs:"):]
            mount("tmpfs", root + target, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                  ",".join(filter(None, (owner, options))))
        else:
            mount(source, root + target, None, MS_BIND)
            make_read_only(root + target)
    for name in ("null", "zero", "random", "urandom"):
        mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
    mount_proc(spec["proc"], root, owner)
    if spec["read_only"]:
        make_read_only(root)
    os.chdir(root)
    call("syscall", SYS_PIVOT_ROOT[os.uname().machine], b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")


def become(uid):
    """The capabilities go with exec: nobody here is root."""
    call("setresgid", uid, uid, uid)
    call("setresuid", uid, uid, uid)
    for cap in range(LAST_CAP + 1):
        _libc.prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)


def run(spec):
    """In the child: the program, or a status that no program has."""
    try:
        os.setsid()
        make_root(spec)
        become(spec["uid"])
        if spec["nofile"]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (spec["nofile"],) * 2)
        for fd in spec["closed"]:
            os.close(fd)
        os.execve(spec["argv"][0], spec["argv"], spec["env"])
    except BaseException as err:  # pylint: disable=broad-except
        os.write(2, f"contain: {err}\n".encode())
    os._exit(125)


def main(spec):
    control = spec["control"]
    os.set_inheritable(control, False)
    call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC
         | CLONE_NEWUTS)
    os.write(control, b"unshared\n")
    if not os.read(control, 1):
        return 125
    call("unshare", CLONE_NEWCGROUP)  # the one that it is in now is the root
    pid = os.fork()
    if pid == 0:
        run(spec)
    os.write(control, b"%d\n" % pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    status = main(json.loads(sys.argv[1]))
    sys.exit(status if status >= 0 else 128 - status)
