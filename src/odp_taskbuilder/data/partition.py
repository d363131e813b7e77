"""Deals the examples of one dataset over clients.

Every strategy returns the examples of each client as positions in the dataset, and is a function of its arguments and the
generator alone.
"""

from __future__ import annotations

import urllib.parse

import numpy as np

from odp_taskbuilder import errors

Assignment = dict[str, np.ndarray]  # Client id to positions in the dataset, int64.


def partition_iid(num_examples: int, num_clients: int, rng: np.random.Generator) -> Assignment:
    """Every client gets a uniformly random share; sizes differ by at most one.

    Raises:
      UsageError: there are fewer examples than clients.
    """
    _check_enough(num_examples, num_clients)
    shares = np.array_split(rng.permutation(num_examples), num_clients)
    return dict(zip(_client_ids(num_clients), shares))


def partition_dirichlet(labels: np.ndarray, num_clients: int, alpha: float, rng: np.random.Generator) -> Assignment:
    """Every client has a label distribution of its own, drawn from Dirichlet(alpha * p) where p is that of the dataset;
    sizes differ by at most one.

    A client draws its examples without replacement, label by label; the probability of a label that is used up goes to the
    others in proportion. The scheme is that of Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution
    for Federated Visual Classification" (2019): a large alpha is close to IID, with a small one clients hold few labels
    each. As the clients that are dealt last take what is left, they are less skewed than alpha says.

    Args:
      labels: [num_examples], of any sortable type.
      alpha: concentration, above 0.

    Raises:
      UsageError: there are fewer examples than clients.
    """
    _check_enough(len(labels), num_clients)
    _, classes = np.unique(labels, return_inverse=True)
    totals = np.bincount(classes)
    by_label = [rng.permutation(np.flatnonzero(classes == label)) for label in range(len(totals))]
    taken = np.zeros_like(totals)
    shares = {}
    for client_id, size in zip(_client_ids(num_clients), _even_sizes(len(labels), num_clients)):
        counts = _draw_counts(rng.dirichlet(alpha * totals / len(labels)), size, totals - taken, rng)
        shares[client_id] = np.concatenate(
            [by_label[label][taken[label] : taken[label] + count] for label, count in enumerate(counts)]
        )
        taken += counts
    return shares


def _draw_counts(preference: np.ndarray, size: int, available: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How many examples of each label a client gets: `size` in total, at most what is available."""
    counts = np.zeros_like(available)
    while counts.sum() < size:
        left = available - counts
        weights = preference * (left > 0)
        # In floating point a preference may be zero for every label that is left.
        weights = weights / weights.sum() if weights.sum() > 0 else left / left.sum()
        counts += np.minimum(rng.multinomial(size - counts.sum(), weights), left)
    return counts


def partition_by_column(names: np.ndarray) -> Assignment:
    """One client for every name; examples keep their order. Characters that a file name cannot hold are percent-encoded."""
    clients, inverse = np.unique(names, return_inverse=True)
    return {
        urllib.parse.quote(str(client), safe=" @+,="): np.flatnonzero(inverse == position)
        for position, client in enumerate(clients)
    }


def split_each_client(assignment: Assignment, test_fraction: float, rng: np.random.Generator) -> tuple[Assignment, Assignment]:
    """Splits every client's examples at random into (train, test), rounding down the test part: a client with few examples
    may have none in test.

    Holding out examples of every client, not clients, is how the federated EMNIST and Shakespeare sets of TFF are split.
    """
    train, test = {}, {}
    for client_id, positions in assignment.items():
        shuffled = rng.permutation(positions)
        held_out = int(len(shuffled) * test_fraction)
        train[client_id] = np.sort(shuffled[held_out:])
        if held_out:
            test[client_id] = np.sort(shuffled[:held_out])
    return train, test


def _client_ids(num_clients: int) -> list[str]:
    width = len(str(num_clients - 1))
    return [f"client_{position:0{width}d}" for position in range(num_clients)]


def _even_sizes(num_examples: int, num_clients: int) -> list[int]:
    return [len(share) for share in np.array_split(np.arange(num_examples), num_clients)]


def _check_enough(num_examples: int, num_clients: int) -> None:
    if num_examples < num_clients:
        raise errors.UsageError(f"{num_examples} examples cannot be dealt to {num_clients} clients: every client needs one.")
