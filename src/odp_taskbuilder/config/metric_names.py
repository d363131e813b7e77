"""The metrics that a task config may name (spec: metrics.md, section 1), and why a name does not fit.

The allow list is a privacy measure: no other aggregates may leave the devices. The Keras classes behind the names are in
learning/; configs are checked without TensorFlow.
"""

from __future__ import annotations

import difflib
from typing import Optional

ALLOWED_METRICS = (
    "auc-roc",
    "auc-pr",
    "accuracy",
    "binary_accuracy",
    "binary_crossentropy",
    "binary_crossentropy_from_logits",
    "categorical_accuracy",
    "categorical_crossentropy",
    "categorical_crossentropy_from_logits",
    "mean",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "precision",
    "recall",
    "root_mean_squared_error",
    "sparse_categorical_accuracy",
    "sparse_categorical_crossentropy",
    "sparse_categorical_crossentropy_from_logits",
)

# More are a mistake or worse: what a rejected name was meant to be takes a while to find.
MAX_METRICS = 100

# On the list, but Keras' Mean takes values, not labels and predictions: no task with it was ever built.
UNBUILDABLE_METRIC = "mean"

# Names by which Keras users know allowed metrics, where spelling alone does not lead there.
_ALIASES = {
    "auc": "auc-roc",
    "roc-auc": "auc-roc",
    "pr-auc": "auc-pr",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "mse": "mean_squared_error",
    "msle": "mean_squared_logarithmic_error",
    "rmse": "root_mean_squared_error",
    "acc": "accuracy",
    "bce": "binary_crossentropy",
}


def suggest_metric(name: str) -> Optional[str]:
    """The allowed metric that a rejected name probably stands for, or None."""
    if len(name) > 2 * max(map(len, ALLOWED_METRICS)):
        return None
    plain = name.strip().lower().replace("_", "-")
    if plain in _ALIASES:
        return _ALIASES[plain]
    by_plain_name = {allowed.replace("_", "-"): allowed for allowed in ALLOWED_METRICS}
    matches = difflib.get_close_matches(plain, by_plain_name, n=1, cutoff=0.75)
    return by_plain_name[matches[0]] if matches else None


def rejection(name: str) -> str:
    """One sentence about a name that is not on the allow list."""
    if name == "loss":
        return "The metric 'loss' is always reported and needs no entry."
    suggestion = suggest_metric(name)
    hint = f" Did you mean '{suggestion}'?" if suggestion else ""
    return f"The metric {name!r} is not on the allow list and is left out.{hint}"
