"""What client data looks like: sizes, features, and how far the clients' label distributions are apart."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, Optional

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.base.phone_limits import MAX_EXAMPLE_BYTES
from odp_taskbuilder.data import examples
from odp_taskbuilder.data.client_data import ClientData


@dataclasses.dataclass(frozen=True)
class FeatureRange:
    """One feature over all examples: the kinds it has, and the smallest and largest number of values per example (0: missing
    somewhere)."""

    kinds: tuple[str, ...]
    min_length: int
    max_length: int


@dataclasses.dataclass(frozen=True)
class LabelSkew:
    """How the labels are spread.

    Attributes:
      counts: examples by label, over all clients.
      mean_distance, max_distance: total variation distance, half the L1 distance, between a client's label distribution and
        that of all examples, over the clients that have examples; 0 when they are alike, close to 1 when clients share no
        label.
      mean_labels_per_client: distinct labels a client holds.
    """

    counts: dict[str, int]
    mean_distance: float
    max_distance: float
    mean_labels_per_client: float


@dataclasses.dataclass(frozen=True)
class DataDescription:
    """Attributes:
    clients, examples: how many there are.
    examples_per_client: min, 25 %, median, 75 %, max and mean.
    empty_clients: clients without examples.
    largest_example: size of the largest serialized example in bytes.
    oversized_examples: how many are larger than phones take.
    labels: None when no label was named.
    """

    source: str
    clients: int
    examples: int
    examples_per_client: dict[str, float]
    empty_clients: int
    largest_example: int
    oversized_examples: int
    features: dict[str, FeatureRange]
    labels: Optional[LabelSkew]


def describe(data: ClientData, label: Optional[str]) -> DataDescription:
    """Reads all examples once, one in memory at a time.

    Args:
      label: feature with a single value to describe the distribution of; ignored when no example has it.

    Raises:
      StorageError: an example cannot be read.
      UsageError: an example is not what it should be; names client and file.
    """
    sizes = []
    largest = oversized = 0
    kinds: dict[str, set[str]] = collections.defaultdict(set)
    lengths: dict[str, list[int]] = {}
    seen: collections.Counter[str] = collections.Counter()
    labels_by_client: list[collections.Counter[Any]] = []
    for client_id in data.client_ids:
        size = 0
        client_labels: collections.Counter[Any] = collections.Counter()
        for serialized in data.examples(client_id):
            features = _decode(data, client_id, size, serialized)
            size += 1
            largest = max(largest, len(serialized))
            oversized += len(serialized) > MAX_EXAMPLE_BYTES
            for name, values in features.items():
                kinds[name].add(examples.kind_of(values))
                low, high = lengths.get(name, (len(values), len(values)))
                lengths[name] = [min(low, len(values)), max(high, len(values))]
                seen[name] += 1
            if label in features and len(features[label]) == 1:
                client_labels[features[label][0]] += 1
        sizes.append(size)
        labels_by_client.append(client_labels)
    total = sum(sizes)
    return DataDescription(
        source=data.source,
        clients=len(sizes),
        examples=total,
        examples_per_client=_summary(sizes),
        empty_clients=sizes.count(0),
        largest_example=largest,
        oversized_examples=oversized,
        features={
            name: FeatureRange(tuple(sorted(kinds[name])), lengths[name][0] if seen[name] == total else 0, lengths[name][1])
            for name in sorted(lengths)
        },
        labels=_label_skew(labels_by_client),
    )


def _decode(data: ClientData, client_id: str, index: int, serialized: bytes) -> dict[str, np.ndarray]:
    try:
        return examples.decode(serialized)
    except ValueError as error:
        raise errors.UsageError(f"Client {client_id!r}, example {index} of {data.location(client_id)}: {error}.") from error


def _summary(sizes: list[int]) -> dict[str, float]:
    percentiles: Any = np.percentile(sizes, [0, 25, 50, 75, 100])
    low, quarter, median, three_quarters, high = percentiles.tolist()
    return {"min": low, "25%": quarter, "median": median, "75%": three_quarters, "max": high, "mean": float(np.mean(sizes))}


def _label_skew(labels_by_client: list[collections.Counter[Any]]) -> Optional[LabelSkew]:
    overall: collections.Counter[Any] = sum(labels_by_client, collections.Counter())
    if not overall:
        return None
    # Labels of several kinds, as clients of several origins have, cannot be compared.
    labels = sorted(overall, key=lambda label: (isinstance(label, bytes), label))
    together = np.array([overall[label] for label in labels]) / sum(overall.values())
    clients = [counter for counter in labels_by_client if counter]
    distances = [
        np.abs(np.array([counter[label] for label in labels]) / sum(counter.values()) - together).sum() / 2
        for counter in clients
    ]
    return LabelSkew(
        counts={label.decode(errors="replace") if isinstance(label, bytes) else str(label): overall[label] for label in labels},
        mean_distance=float(np.mean(distances)),
        max_distance=float(np.max(distances)),
        mean_labels_per_client=float(np.mean([len(counter) for counter in clients])),
    )
