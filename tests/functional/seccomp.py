# SPDX-License-Identifier: MIT
"""Make one system call, with certain arguments, fail in this process and in what it executes, or ask another."""

import ctypes
import errno
import fcntl
import os
import platform
import select
import struct

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND = 0xC0502100, 0xC0182101
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
BPF_LOAD, BPF_JEQ, BPF_RET = 0x20, 0x15, 0x06

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SYSCALLS = {
    "clone": {"x86_64": 56, "aarch64": 220},
    "clone3": {"x86_64": 435, "aarch64": 435},
    "connect": {"x86_64": 42, "aarch64": 203},
    "epoll_ctl": {"x86_64": 233, "aarch64": 21},
    "seccomp": {"x86_64": 317, "aarch64": 277},
    "socket": {"x86_64": 41, "aarch64": 198},
    "sendto": {"x86_64": 44, "aarch64": 206},
    "setsockopt": {"x86_64": 54, "aarch64": 208},
}
# Offsets in struct seccomp_data.
NR, ARCH = 0, 4


def _low_word_of_argument(index):
    return 16 + 8 * index


def _program(syscall, arguments, action):
    """Take action when the system call's arguments have these values."""
    checks = [(ARCH, AUDIT_ARCH[platform.machine()]), (NR, number_of(syscall))]
    checks += [(_low_word_of_argument(index), value) for index, value in arguments.items()]
    code = []
    for i, (offset, value) in enumerate(checks):
        code.append((BPF_LOAD, 0, 0, offset))
        code.append((BPF_JEQ, 0, 2 * (len(checks) - 1 - i) + 1, value))
    code.append((BPF_RET, 0, 0, action))
    code.append((BPF_RET, 0, 0, SECCOMP_RET_ALLOW))
    return code


def _load(code, flags):
    insns = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *insn) for insn in code))
    fprog = struct.pack("HxxxxxxP", len(code), ctypes.addressof(insns))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    result = libc.syscall(number_of("seccomp"), SECCOMP_SET_MODE_FILTER, flags, fprog)
    if result < 0:
        raise OSError(ctypes.get_errno(), "seccomp(SECCOMP_SET_MODE_FILTER)")
    return result


def number_of(syscall):
    """Its number on this machine."""
    return SYSCALLS[syscall][platform.machine()]


def deny(syscall, arguments, error):
    """deny("setsockopt", {1: IPPROTO_IP}, ENOPROTOOPT): where argument 1 is that. For good."""
    _load(_program(syscall, arguments, SECCOMP_RET_ERRNO | error), 0)


def ask(syscall, arguments):
    """Each such call waits for what answer() says; returns its descriptor. For good."""
    return _load(_program(syscall, arguments, SECCOMP_RET_USER_NOTIF),
                 SECCOMP_FILTER_FLAG_NEW_LISTENER)


def answer(listener, decide):
    """Each call fails with the errno that decide() returns, or goes on at 0. Until nobody is left to call."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while poll.poll()[0][1] & select.POLLIN:
        notif = bytearray(80)
        try:
            fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, notif)
        except OSError as err:
            if err.errno != errno.ENOENT:  # it has ended meanwhile
                raise
            continue
        error = decide()
        flags = 0 if error else SECCOMP_USER_NOTIF_FLAG_CONTINUE
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, notif[:8] + struct.pack("qiI", 0, -error, flags))
    os.close(listener)
