# SPDX-License-Identifier: MIT
"""Make one system call, with certain arguments, fail in this process and in what it executes."""

import ctypes
import platform
import struct

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000
BPF_LOAD, BPF_JEQ, BPF_RET = 0x20, 0x15, 0x06

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SYSCALLS = {
    "clone": {"x86_64": 56, "aarch64": 220},
    "clone3": {"x86_64": 435, "aarch64": 435},
    "connect": {"x86_64": 42, "aarch64": 203},
    "epoll_ctl": {"x86_64": 233, "aarch64": 21},
    "socket": {"x86_64": 41, "aarch64": 198},
    "sendto": {"x86_64": 44, "aarch64": 206},
    "setsockopt": {"x86_64": 54, "aarch64": 208},
}
# Offsets in struct seccomp_data.
NR, ARCH = 0, 4


def _low_word_of_argument(index):
    return 16 + 8 * index


def _program(checks, error):
    """Fail with error when the words at all these offsets have these values."""
    code = []
    for i, (offset, value) in enumerate(checks):
        code.append((BPF_LOAD, 0, 0, offset))
        code.append((BPF_JEQ, 0, 2 * (len(checks) - 1 - i) + 1, value))
    code.append((BPF_RET, 0, 0, SECCOMP_RET_ERRNO | error))
    code.append((BPF_RET, 0, 0, SECCOMP_RET_ALLOW))
    return code


def number_of(syscall):
    """Its number on this machine."""
    return SYSCALLS[syscall][platform.machine()]


def deny(syscall, arguments, error):
    """deny("setsockopt", {1: IPPROTO_IP}, ENOPROTOOPT): where argument 1 is that. For good."""
    checks = [(ARCH, AUDIT_ARCH[platform.machine()]), (NR, number_of(syscall))]
    checks += [(_low_word_of_argument(index), value) for index, value in arguments.items()]
    code = _program(checks, error)
    insns = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *insn) for insn in code))
    fprog = struct.pack("HxxxxxxP", len(code), ctypes.addressof(insns))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")
