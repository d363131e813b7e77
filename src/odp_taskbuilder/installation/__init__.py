"""What odp-task needs of the machine and of its Python environment: told (`support`, `doctor`), and completed (`setup`).

The wheel's requirements leave out the packages of packages.json, which `odp-task setup` adds: TensorFlow Federated, whose own
requirements cannot be resolved any more, and two that it imports. `require_tff` and `require_tff_runtime` tell in one line what is missing.

Uses base/, sandbox/ and errors.py; support.py uses nothing, because scripts run it before anything is installed. Checks of a model, a
config or a server do not belong here.
"""

from odp_taskbuilder.installation.packages import has_tff_runtime, require_sandbox, require_tff, require_tff_runtime

__all__ = ["has_tff_runtime", "require_sandbox", "require_tff", "require_tff_runtime"]
