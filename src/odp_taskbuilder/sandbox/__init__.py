"""Runs functions in child processes that can do little harm: the second line of defence against models (the first is scan/).

    from odp_taskbuilder import sandbox

    with sandbox.Zygote(preload=["tensorflow_federated"]) as zygote:       # about ten seconds, once
        value = zygote.run(
            "package.module:function",                                    # trusted code, which handles the untrusted model
            {"model": "/tmp/job/model"},                                  # JSON in, JSON out
            scratch="/tmp/job/scratch",                                   # empty; the only place to write to
            readable=["/tmp/job/model"],
            limits=sandbox.SandboxLimits(wall_seconds=600),
        )
    with sandbox.open_output("/tmp/job/scratch", "plan.pb", 2**31) as file:  # large results are files
        ...

`sandbox.run(...)` is the same for one call. Errors of the function arrive as the classes of errors.py; crashes, exhausted limits and
anything else as errors.ModelError. The caller survives all of them.

The child has no network, cannot write outside of its scratch directory nor change the mode, times or attributes of what is there, reads
only installed code and what it is given, sees neither environment variables nor session keys of the caller's, is bounded in memory,
processor time, processes, file sizes and time, may make few of the kernel's calls, and ends when the caller ends. Which of this is in
force depends on the kernel: `sandbox.available()` tries each and says. Not covered: holes of the kernel, disk space (only the size of each
file is bounded), reading memory of TensorFlow's that it left uninitialised in the child itself, and timing.

`sandbox.close_off_this_process(...)` puts a process of one's own under the same protections, without limits and without a process namespace.

Uses base/ and errors.py. What runs inside is the caller's, named as a function of an installed module.
"""

from odp_taskbuilder.sandbox.client import Zygote, open_output, run
from odp_taskbuilder.sandbox.confine import close_off_this_process
from odp_taskbuilder.sandbox.limits import SandboxLimits
from odp_taskbuilder.sandbox.protections import Protection, available

__all__ = ["Protection", "SandboxLimits", "Zygote", "available", "close_off_this_process", "open_output", "run"]
