"""What a sandboxed child may use."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class SandboxLimits:
    """Bounds of one child. The defaults leave room for a build on a small machine: TensorFlow and TFF take about 600 MB.

    Attributes:
      wall_seconds: time until the child is ended, from outside.
      cpu_seconds: processor time of each process in the sandbox, over all its threads.
      memory_bytes: memory that one process may ask for (RLIMIT_DATA: private and writable; libraries and mapped files do not
        count), and memory that all processes of the sandbox may occupy, which is looked at four times a second; what they share
        counts for each of them.
      processes: processes and threads of the sandbox together.
      file_bytes: size of any one file that is written.
      open_files: open files of each process.
      result_bytes: size of the returned document as JSON. Larger results belong into files in the scratch directory.
    """

    wall_seconds: float = 900
    cpu_seconds: int = 1800
    memory_bytes: int = 8 * 2**30
    processes: int = 1024
    file_bytes: int = 4 * 2**30
    open_files: int = 1024
    result_bytes: int = 2**20
