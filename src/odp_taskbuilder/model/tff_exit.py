"""A quiet end for processes that use TensorFlow Federated.

TFF 0.87 ends the service that it runs computations in when its `ServiceManager` is destroyed. At the end of the interpreter that comes
too late: modules are gone by then, Python prints an ignored AttributeError, and the service lives on. Importing this module has
the managers that are there do it just before.
"""

from __future__ import annotations

import atexit
import contextlib
import gc

_MODULE = "tensorflow_federated.python.core.impl.executor_stacks.executor_factory"


def _end_services() -> None:
    for manager in [found for found in gc.get_objects() if _is_manager(type(found))]:
        kind = type(manager)
        if "__del__" in vars(kind):
            with contextlib.suppress(OSError):  # The service has ended on its own.
                manager.__del__()
            del kind.__del__


def _is_manager(kind: type) -> bool:
    return kind.__name__ == "ServiceManager" and kind.__module__ == _MODULE


atexit.register(_end_services)
