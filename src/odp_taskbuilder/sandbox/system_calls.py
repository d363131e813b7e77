"""The filter of system calls: what interpreters, TensorFlow, TFF and XLA need is allowed, everything else fails.

Made with libseccomp through its Python binding, which is optional: `pyseccomp` (extra `seccomp`) or Debian's python3-seccomp. It knows the
numbers of each processor, and lets no other calling convention in (32-bit calls, x32). Calls that are not listed fail with ENOSYS, as on a
kernel that lacks them, which libraries are prepared for.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

try:
    import pyseccomp as seccomp
except (ImportError, RuntimeError, OSError):  # RuntimeError: the binding is there, the system's library is not.
    try:
        import seccomp
    except ImportError:
        seccomp = None

_ALLOWED = """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat close close_range creat lseek
    stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir
    rename renameat renameat2 mkdir mkdirat rmdir unlink unlinkat link linkat symlink symlinkat umask truncate ftruncate fallocate
    fsync fdatasync sync_file_range fadvise64 readahead flock fcntl dup dup2 dup3 pipe pipe2 sendfile copy_file_range
    munmap mremap mprotect madvise brk mincore msync mlock mlock2 munlock membarrier
    select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2
    timerfd_create timerfd_settime timerfd_gettime signalfd4
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend rt_sigqueueinfo rt_tgsigqueueinfo sigaltstack
    kill tkill tgkill pause alarm setitimer getitimer timer_create timer_settime timer_gettime timer_delete timer_getoverrun
    nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times restart_syscall
    getpid gettid getppid getpgrp getpgid setpgid getsid setsid getuid geteuid getgid getegid getresuid getresgid getgroups
    uname sysinfo getrusage getrlimit setrlimit getcpu getrandom
    sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
    getpriority fork vfork execve execveat wait4 waitid exit exit_group set_tid_address arch_prctl
    futex futex_waitv set_robust_list get_robust_list rseq
    bind connect listen accept accept4 sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown getsockname getpeername setsockopt getsockopt
""".split()
# Mode, owner, times and attributes of files can be changed where their content cannot: of any file that its owner can reach. Priorities and
# limits can be changed of other processes. Refused in the words of a file system or scheduler, which callers are prepared for.
_REFUSED = """
    chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat
    setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
    setpriority ioprio_set ptrace process_vm_readv process_vm_writev kcmp pidfd_open pidfd_getfd perf_event_open bpf userfaultfd
    mount umount2 mount_setattr move_mount open_tree fsopen fsmount pivot_root chroot unshare setns memfd_create memfd_secret
    keyctl add_key request_key
""".split()
_SCHEDULING = "sched_setaffinity sched_setscheduler sched_setparam sched_setattr".split()
# Of terminals and descriptors; among the rest are flags of files, and what types into a terminal.
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x5452)
# Names, parents' deaths, dumpability (to ask), no new privileges, timer slack, subreapers, huge pages, names of mappings.
_PRCTLS = (1, 3, 15, 16, 21, 23, 29, 30, 36, 37, 38, 39, 41, 42, 0x53564D41)
_NAMESPACE_FLAGS = 0x7E020000
_MAP_SHARED = 0x01
_MAP_ANONYMOUS = 0x20
_S_IFMT = 0o170000
_S_IFREG = 0o100000
_S_IFIFO = 0o010000


def is_available() -> bool:
    """Whether libseccomp and a binding are installed; which costs some milliseconds, and a process, when it is asked first."""
    return seccomp is not None


def restrict(*, has_network: bool) -> None:
    """Allows this process, and all that it starts, the listed calls only, for good.

    Args:
      has_network: whether it has a network namespace (and, as they come together, a view of processes) of its own; elsewhere no socket
        of the internet's families can be made, and no other process be scheduled.

    Raises:
      OSError: there is no library, or the kernel refuses.
    """
    if seccomp is None:
        raise OSError(errno.ENOSYS, "libseccomp or its Python binding is missing")
    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.ENOSYS))
    # Calls of another convention would be told apart by numbers that mean something else here.
    rules.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.ERRNO(errno.ENOSYS))
    for name in _ALLOWED:
        _add(rules, seccomp.ALLOW, name)
    for name in _REFUSED:
        _add(rules, seccomp.ERRNO(errno.EPERM), name)
    for name in _SCHEDULING:
        if has_network:
            _add(rules, seccomp.ALLOW, name)
        else:
            _add(rules, seccomp.ALLOW, name, (0, seccomp.EQ, 0))
    _add(rules, seccomp.ALLOW, "prlimit64", (0, seccomp.EQ, 0))
    _add(rules, seccomp.ALLOW, "clone", (0, seccomp.MASKED_EQ, _NAMESPACE_FLAGS, 0))
    # Shared memory without a file outlives its mapping unseen. Two rules, as each of the two flags alone is harmless.
    for flag in (_MAP_SHARED, _MAP_ANONYMOUS):
        _add(rules, seccomp.ALLOW, "mmap", (3, seccomp.MASKED_EQ, flag, 0))
    for kind in (_S_IFREG, _S_IFIFO, 0):
        _add(rules, seccomp.ALLOW, "mknod", (1, seccomp.MASKED_EQ, _S_IFMT, kind))
        _add(rules, seccomp.ALLOW, "mknodat", (2, seccomp.MASKED_EQ, _S_IFMT, kind))
    for request in _IOCTLS:
        _add(rules, seccomp.ALLOW, "ioctl", (1, seccomp.EQ, request))
    for option in _PRCTLS:
        _add(rules, seccomp.ALLOW, "prctl", (0, seccomp.EQ, option))
    # Pairs of sockets lead nowhere else; event loops are made of them.
    _add(rules, seccomp.ALLOW, "socketpair", (0, seccomp.EQ, socket.AF_UNIX))
    if has_network:
        for family in (socket.AF_INET, socket.AF_INET6):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                _add(rules, seccomp.ALLOW, "socket", (0, seccomp.EQ, int(family)), (1, seccomp.MASKED_EQ, 0xF, int(kind)))
    rules.load()


def _add(rules: Any, action: int, name: str, *conditions: tuple) -> None:
    """Adds a rule. A call that this processor or this libseccomp does not know has none: it stays forbidden."""
    try:
        rules.add_rule(action, name, *(seccomp.Arg(*condition) for condition in conditions))
    except (OSError, RuntimeError, ValueError):
        return
