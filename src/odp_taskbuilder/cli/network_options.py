"""Options of the commands that use the network."""

from __future__ import annotations

import functools
from typing import Any, Callable

import click


def network_options(function: Callable) -> Callable:
    """Adds --deadline and --request_timeout; the command gets both as `network`, a transport.deadline.Network.

    A command that computes between two pieces of network work grants each of them the whole of the deadline.
    """

    @click.option(
        "--deadline",
        type=click.FloatRange(min=0, min_open=True),
        default=3600,
        show_default=True,
        metavar="SECONDS",
        help="For the network work of the command; in a build, for each of config, model and upload.",
    )
    @click.option(
        "--request_timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=20,
        show_default=True,
        metavar="SECONDS",
        help="How long a server may send nothing.",
    )
    @functools.wraps(function)
    def command(*args: Any, deadline: float, request_timeout: float, **kwargs: Any) -> Any:
        from odp_taskbuilder.transport import deadline as deadlines

        return function(*args, network=deadlines.Network(deadline=deadline, silence=request_timeout), **kwargs)

    return command
