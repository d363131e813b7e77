"""TensorFlow Federated's own runtime, which is published for Linux on x86-64 only."""

import pytest

from odp_taskbuilder.installation import has_tff_runtime


def require_tff_runtime() -> None:
    """Skips the test where the runtime is missing: TFF then imports and composes, but computes nothing by itself."""
    if not has_tff_runtime():
        pytest.skip("TensorFlow Federated's own runtime (worker_binary) is not installed")
