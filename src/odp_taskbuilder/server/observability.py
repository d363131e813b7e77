"""What an operator sees of a service: log lines in JSON, and metrics for Prometheus. Neither holds a secret."""

from __future__ import annotations

import json
import logging
import sys
import time

import prometheus_client

from odp_taskbuilder.base import plain_text, redaction
from odp_taskbuilder.server.admission import Admission

_MAX_VALUE = 2000

_LOGGER = logging.getLogger("odp_taskbuilder.server")


class _JsonFormatter(logging.Formatter):
    """One object per line: time, level, event, and what came with the event."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "event": record.getMessage(),
            **getattr(record, "details", {}),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return plain_text.escaped_json(json.dumps(redaction.redact_document(document), ensure_ascii=False))


def log_to_stderr() -> None:
    """Sends the log of the whole process to stderr, as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    _LOGGER.setLevel(logging.INFO)


def log(event: str, *, level: int = logging.INFO, **details: object) -> None:
    """Logs one event. Long values are shortened."""
    shown = {
        # What is cut off may be what tells a password.
        name: plain_text.shortened(redaction.redact(value), _MAX_VALUE) if isinstance(value, str) else value
        for name, value in details.items()
    }
    _LOGGER.log(level, event, extra={"details": shown})


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self, admission: Admission):
        self.registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        self._requests = prometheus_client.Counter(
            "odp_task_requests", "Requests by endpoint and HTTP status.", ["endpoint", "status"], registry=self.registry
        )
        self._builds = prometheus_client.Counter(
            "odp_task_builds", "Answered builds by result: SUCCESS or an error type.", ["result"], registry=self.registry
        )
        self._seconds = prometheus_client.Histogram(
            "odp_task_build_seconds",
            "Duration of builds, waiting included.",
            buckets=(0.1, 1, 5, 15, 30, 60, 120, 300, 600, 1800),
            registry=self.registry,
        )
        for name, text, value in (
            ("odp_task_builds_running", "Builds that have a worker.", lambda: admission.num_running),
            ("odp_task_builds_waiting", "Builds that wait for a worker.", lambda: admission.num_waiting),
        ):
            prometheus_client.Gauge(name, text, registry=self.registry).set_function(value)

    def count_request(self, endpoint: str, status: int) -> None:
        self._requests.labels(endpoint, status).inc()

    def count_build(self, result: str, seconds: float) -> None:
        self._builds.labels(result).inc()
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """All metrics in the exposition format that Prometheus reads."""
        return prometheus_client.generate_latest(self.registry)
