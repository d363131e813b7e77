"""Environment variables under which one machine computes as others do. scripts/check-processors runs tests under each."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy.core._multiarray_umath as numpy_core

# The C library chooses exp, log and pow by what the processor has; without FMA their last bits differ.
_OLD_C_LIBRARY = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4"}


def _old_numpy() -> Mapping[str, str]:
    """NumPy with its SSE loops only, as on a processor before AVX2. Features that are absent already must not be named."""
    names = [name for name in numpy_core.__cpu_dispatch__ if name in ("AVX2", "FMA3") or name.startswith("AVX512")]
    present = [name for name in names if numpy_core.__cpu_features__.get(name)]
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(present)} if present else {}


def _setting(*variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for part in variables for name, value in part.items()}


SETTINGS: Mapping[str, Mapping[str, str]] = {
    "C library without AVX2 and FMA": _setting(_OLD_C_LIBRARY),
    "NumPy without AVX2, FMA3 and AVX-512": _setting(_old_numpy()),
    "oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "oneDNN on": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    "all of an old processor": _setting(_OLD_C_LIBRARY, _old_numpy(), {"TF_ENABLE_ONEDNN_OPTS": "0"}),
}


def environment(setting: str) -> dict[str, str]:
    """This process's environment with the variables of a setting, and without those of the others."""
    chosen = {name for variables in SETTINGS.values() for name in variables}
    return {**{name: value for name, value in os.environ.items() if name not in chosen}, **SETTINGS[setting]}
