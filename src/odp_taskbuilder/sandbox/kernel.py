"""The system calls that a sandbox needs and Python does not offer. Linux only; elsewhere every function raises OSError."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import socket
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Optional

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

# These numbers are the same on all processors that TensorFlow has wheels for.
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_ADD_RULE = 445
_SYS_LANDLOCK_RESTRICT_SELF = 446
_SYS_MOUNT_SETATTR = 442
# And these are not.
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
_SYS_ADD_KEY = {"x86_64": 248, "aarch64": 217}

_KEYCTL_JOIN_SESSION_KEYRING = 1
_KEYCTL_UNLINK = 9
_KEYCTL_SEARCH = 10
_SESSION_KEYRING = -3

_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
_MOUNT_ATTR_NOSUID = 2
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1

# Rights over files, of linux/landlock.h.
EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
# How many of the rights, counted from the lowest bit, each version of Landlock knows.
_NUM_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
_NUM_RIGHTS_NEWEST = 16
# Binding and connecting TCP sockets (version 4); abstract sockets of, and signals to, processes outside (version 6).
_NET_RIGHTS = 0b11
_SCOPES = 0b11


def set_parent_death_signal(signum: int) -> None:
    """Has the kernel send this process a signal when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signum)


def become_subreaper() -> None:
    """Makes orphaned descendants children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    """Makes set-user-id programs start without their privileges, for this process and all that it starts."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Gives up what the superuser may do, which the creator of a user namespace may do in there."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_libc().capset(header, bytes(24)))


def unshare(flags: int) -> None:
    """Moves this process (for CLONE_NEWPID: its next children) into new namespaces."""
    _checked(_libc().unshare(flags))


def make_mounts_read_only(writable: Sequence[str]) -> None:
    """Moves this process into a mount namespace of its own, in which everything but the given directories is read-only: files, and
    their mode, owner, times and attributes."""
    unshare(CLONE_NEWNS)
    _mount(None, "/", _MS_REC | _MS_PRIVATE)
    for path in writable:
        _mount(path, path, _MS_BIND)
    _set_mount_attributes("/", _AT_RECURSIVE, set=_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID)
    for path in writable:
        _set_mount_attributes(path, 0, clear=_MOUNT_ATTR_RDONLY)


def join_new_session_keyring() -> None:
    """Gives this process, and all that it starts, an empty session keyring in the place of its parent's."""
    _syscall(_number(_SYS_KEYCTL), _KEYCTL_JOIN_SESSION_KEYRING, None)


def add_session_key(description: str, content: bytes) -> int:
    """Adds a key of type `user` to the session keyring; returns its serial number."""
    args = (b"user", description.encode(), content, ctypes.c_size_t(len(content)), _SESSION_KEYRING)
    return _syscall(_number(_SYS_ADD_KEY), *args)


def find_session_key(description: str) -> int:
    """Finds a key of type `user` in the session keyring or in those that are linked there; returns its serial number."""
    return _syscall(_number(_SYS_KEYCTL), _KEYCTL_SEARCH, _SESSION_KEYRING, b"user", description.encode(), 0)


def remove_session_key(key: int) -> None:
    """Removes a key from the session keyring."""
    _syscall(_number(_SYS_KEYCTL), _KEYCTL_UNLINK, key, _SESSION_KEYRING)


def raise_loopback() -> None:
    """Switches on the loopback interface of a new network namespace, which nothing outside of it can reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


def landlock_abi() -> int:
    """The version of Landlock that this kernel has; 0 for none."""
    try:
        return _syscall(_SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_CREATE_RULESET_VERSION)
    except OSError:
        return 0


def landlock_restrict(rules: Iterable[tuple[str, int]], *, deny_tcp: bool) -> None:
    """Restricts this process, and all that it starts, to the given rights below the given paths; paths that are absent count for
    nothing. Processes outside can no longer be signalled or traced.

    Args:
      rules: pairs of a path and rights.
      deny_tcp: also forbids TCP, for where there is no network namespace.
    """
    abi = landlock_abi()
    if abi < 1:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    handled = (1 << _NUM_RIGHTS_BY_ABI.get(abi, _NUM_RIGHTS_NEWEST)) - 1
    attributes = struct.pack("=Q", handled)
    if abi >= 4:
        attributes += struct.pack("=Q", _NET_RIGHTS if deny_tcp else 0)
    if abi >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = _syscall(_SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for path, rights in rules:
            _add_rule(ruleset, path, rights & handled)
        _syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _add_rule(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _FILE_RIGHTS
        _syscall(_SYS_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def _mount(source: Optional[str], target: str, flags: int) -> None:
    encoded = os.fsencode(source) if source is not None else None
    _checked(_libc().mount(encoded, os.fsencode(target), None, ctypes.c_ulong(flags), None))


def _set_mount_attributes(path: str, flags: int, *, set: int = 0, clear: int = 0) -> None:
    attributes = struct.pack("=QQQQ", set, clear, 0, 0)
    _syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), flags, attributes, ctypes.c_size_t(len(attributes)))


def _number(numbers: Mapping[str, int]) -> int:
    machine = platform.machine()
    if machine not in numbers:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return numbers[machine]


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _checked(_libc().prctl(option, ctypes.c_ulong(value), zero, zero, zero))


def _syscall(number: int, *args: object) -> int:
    return _checked(_libc().syscall(ctypes.c_long(number), *args))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _libc() -> ctypes.CDLL:
    if not sys.platform.startswith("linux"):
        raise OSError(errno.ENOSYS, "this protection exists on Linux only")
    return ctypes.CDLL(None, use_errno=True)
