"""`python weaker_kernel.py WITHOUT COMMAND...`: runs a command under a kernel that lacks something.

WITHOUT is a comma-separated list: `namespaces` (unshare fails, as in a container or where user namespaces are switched off), `landlock`
(as before Linux 5.13), `library` (libseccomp's binding is not installed).
"""

import errno
import os
import sys
import tempfile

import pyseccomp

_CALLS = {"namespaces": ["unshare"], "landlock": ["landlock_create_ruleset"]}


def main(without, command):
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in without:
        for call in _CALLS.get(name, ()):
            rules.add_rule(pyseccomp.ERRNO(errno.EPERM if name == "namespaces" else errno.ENOSYS), call)
    rules.load()
    if "library" in without:
        # Found before the real one, and failing as that does where the library is absent.
        folder = tempfile.mkdtemp()
        for module in ("pyseccomp", "seccomp"):
            with open(f"{folder}/{module}.py", "w", encoding="ascii") as file:
                file.write("raise RuntimeError('Unable to find libseccomp')\n" if module == "pyseccomp" else "raise ImportError\n")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2:])
