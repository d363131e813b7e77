"""TensorFlow sessions on the graphs of a plan, set up as the server sets them up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Optional

import tensorflow as tf

from odp_taskbuilder import errors
from odp_taskbuilder.runtime import seeded_noise


class GraphSessions:
    """Sessions on one graph. Importing it costs about 0.1 s, a session about 50 ms.

    Each use gets a session of its own, as the server's roles share nothing but files. With `keep` all uses share one, until `close`;
    results are the same where every role loads or initializes what it reads. With `seed_noise` noise needs a seed (seeded_noise.SEED).

    Raises:
      errors.ArtifactError: the bytes are no graph that TensorFlow can import.
    """

    def __init__(self, graph_def: bytes, *, keep: bool, seed_noise: bool = False):
        self._keep = keep
        self._kept: Optional[tf.compat.v1.Session] = None
        self.graph = tf.Graph()
        try:
            parsed = tf.compat.v1.GraphDef.FromString(graph_def)
            if seed_noise:
                parsed = seeded_noise.with_seeded_noise(parsed)
            with self.graph.as_default():
                tf.import_graph_def(parsed, name="")
        except errors.ArtifactError:
            raise
        except Exception as error:  # noqa: BLE001 - importing raises what a broken graph makes it stumble over.
            raise errors.ArtifactError(f"The plan's server graph cannot be imported: {error}") from error

    @contextlib.contextmanager
    def session(self) -> Iterator[tf.compat.v1.Session]:
        """A session; a failure of the graph in it becomes an ArtifactError, a full disk a StorageError."""
        session = self._kept or self._new_session()
        if self._keep:
            self._kept = session
        try:
            yield session
        except tf.errors.OpError as error:
            if "No space left on device" in error.message:
                raise errors.StorageError(f"Cannot write a checkpoint: {_reason(error)}") from error
            raise errors.ArtifactError(f"The plan's server graph failed: {_reason(error)}") from error
        finally:
            if not self._keep:
                session.close()

    def close(self) -> None:
        """Ends the session that was kept."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _new_session(self) -> tf.compat.v1.Session:
        config = tf.compat.v1.ConfigProto()
        # As the server does: nodes outside a run's closure are never placed, so they may even be unplaceable.
        config.graph_options.place_pruned_graph = True
        return tf.compat.v1.Session(graph=self.graph, config=config)


def _reason(error: tf.errors.OpError) -> str:
    """TensorFlow's message in one line, without the stack trace of who made the graph: that is nobody here."""
    message, _, _ = error.message.partition("Original stack trace")
    return " ".join(message.split())


def metric_value(value: Any) -> float:
    """What the server publishes of a metric: its first element as a double (spec: plan.md, section 5.2)."""
    return float(value.ravel()[0]) if hasattr(value, "ravel") else float(value)
