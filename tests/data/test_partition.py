"""Partitioning loses no example, repeats with its seed, and skews as it was asked to."""

import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples, tfrecord
from odp_taskbuilder.data.describe import describe
from odp_taskbuilder.data.open import open_client_data
from odp_taskbuilder.data.partition import partition_dirichlet, partition_iid
from odp_taskbuilder.data.partitioned_dataset import partition_dataset

LABELS = np.repeat(np.arange(10), 200)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    "deal",
    [lambda generator: partition_iid(2000, 30, generator), lambda generator: partition_dirichlet(LABELS, 30, 0.3, generator)],
)
def test_every_example_goes_to_exactly_one_client_in_even_shares(deal):
    shares = deal(rng())
    assert sorted(np.concatenate(list(shares.values())).tolist()) == list(range(2000))
    assert {len(share) for share in shares.values()} == {66, 67}
    again, other = deal(rng()), deal(rng(1))
    assert all(np.array_equal(shares[client], again[client]) for client in shares)
    assert any(not np.array_equal(shares[client], other[client]) for client in shares)


def mean_distance(alpha):
    shares = partition_dirichlet(LABELS, 20, alpha, rng())
    return np.mean([np.abs(np.bincount(LABELS[share], minlength=10) / len(share) - 0.1).sum() / 2 for share in shares.values()])


def test_alpha_goes_from_one_label_per_client_to_iid():
    assert mean_distance(0.01) > 0.75 > mean_distance(3) > 0.2 > mean_distance(1000)


def test_a_labels_share_follows_the_dirichlet_distribution():
    # Few draws from a large stock, so that running out plays no part. With alpha * p = 2 for both labels, the share of label
    # 0 among a client's examples has mean 1/2 and standard deviation sqrt(1/20); the sampling of 100 examples adds the
    # variance E[q(1 - q)] / 100 = 1/500.
    labels = np.repeat([0, 1], 200_000)
    shares = partition_dirichlet(labels, 4000, 4.0, rng())
    fractions = np.array([np.mean(labels[share] == 0) for share in list(shares.values())[:1000]])
    assert abs(fractions.mean() - 0.5) < 4 * np.sqrt(0.052 / 1000)
    assert abs(fractions.var() - 0.052) < 0.008


def test_more_clients_than_examples_is_refused():
    with pytest.raises(errors.UsageError, match="3 examples cannot be dealt to 4 clients"):
        partition_iid(3, 4, rng())


def test_digits_are_partitioned_with_each_clients_own_test_part(tmp_path):
    pytest.importorskip("sklearn")
    parts = partition_dataset("digits", tmp_path / "out", strategy="iid", num_clients=30, test_fraction=0.2, seed=5)
    assert parts["train"].clients == parts["test"].clients == 30
    assert parts["train"].examples + parts["test"].examples == 1797
    # 1797 = 27 * 60 + 3 * 59, of which floor(0.2 * size) are held out.
    assert parts["test"].examples == 27 * 12 + 3 * 11
    data = open_client_data(str(tmp_path / "out" / "train"))
    decoded = examples.decode(next(data.examples("client_00")))
    assert decoded["x"].shape == (64,)
    assert decoded["x"].dtype == np.float32
    assert (decoded["x"].min(), decoded["x"].max()) == (0.0, 1.0)
    assert decoded["y"].shape == (1,)
    assert all(1 < counts < 300 for counts in parts["train"].labels.counts.values())


def test_a_table_is_partitioned_by_the_column_that_names_the_client(tmp_path):
    (tmp_path / "t.csv").write_text("user,a,y\nb/1,0.5,1\nann,2,0\nb/1,3,1\n")
    parts = partition_dataset(f"{tmp_path / 't.csv'}?x:float32=a&y=y", tmp_path / "out", strategy="column", column="user")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tfrecord")) == ["ann.tfrecord", "b%2F1.tfrecord"]
    assert parts[""].examples == 3
    rows = [examples.decode(record) for record in tfrecord.read_records(tmp_path / "out" / "b%2F1.tfrecord")]
    assert [(float(row["x"][0]), int(row["y"][0])) for row in rows] == [(0.5, 1), (3.0, 1)]


def test_a_tfrecord_file_is_partitioned_by_a_feature(tmp_path):
    tfrecord.write_records(
        tmp_path / "all.tfrecord", [examples.encode({"x": np.float32([i]), "y": np.array([i % 3])}) for i in range(9)]
    )
    parts = partition_dataset(str(tmp_path / "all.tfrecord"), tmp_path / "out", strategy="column", column="y")
    assert parts[""].clients == 3
    assert parts[""].labels.mean_labels_per_client == 1.0
    assert parts[""].labels.mean_distance == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"strategy": "iid"}, "needs the number of clients"),
        ({"strategy": "column"}, "needs the column"),
        (
            {"strategy": "dirichlet", "num_clients": 2, "label": "z"},
            "expected one value of 'z' in every example, found none in example 0",
        ),
        (
            {"strategy": "dirichlet", "num_clients": 2, "label": "x"},
            "expected one value of 'x' in every example, found 2 in example 0",
        ),
    ],
)
def test_impossible_requests_write_nothing(arguments, message, tmp_path):
    tfrecord.write_records(tmp_path / "all.tfrecord", [examples.encode({"x": np.zeros(2, np.float32), "y": np.array([1])})] * 4)
    with pytest.raises(errors.UsageError, match=message):
        partition_dataset(str(tmp_path / "all.tfrecord"), tmp_path / "out", **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["all.tfrecord"]


def test_an_existing_output_is_replaced_on_request_only(tmp_path):
    tfrecord.write_records(tmp_path / "all.tfrecord", [examples.encode({"y": np.array([1])})] * 4)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    arguments = {"strategy": "iid", "num_clients": 2}
    with pytest.raises(errors.StorageError, match="holds files that are not a former output"):
        partition_dataset(str(tmp_path / "all.tfrecord"), tmp_path / "out", **arguments)
    assert (tmp_path / "out" / "mine").read_text() == "kept"
    partition_dataset(str(tmp_path / "all.tfrecord"), tmp_path / "out", **arguments, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tfrecord")) == ["client_0.tfrecord", "client_1.tfrecord"]


def test_description_counts_what_is_there(tmp_path):
    tfrecord.write_records(
        tmp_path / "a.tfrecord", [examples.encode({"x": np.zeros(size, np.float32), "y": np.array([1])}) for size in (2, 3)]
    )
    tfrecord.write_records(
        tmp_path / "b.tfrecord", [examples.encode({"y": np.array([0])}), examples.encode({"y": np.array([1])})]
    )
    tfrecord.write_records(tmp_path / "c.tfrecord", [])
    found = describe(open_client_data(str(tmp_path)), "y")
    assert (found.clients, found.examples, found.empty_clients) == (3, 4, 1)
    assert found.examples_per_client["median"] == 2
    assert (found.features["x"].min_length, found.features["x"].max_length) == (0, 3)
    assert found.labels.counts == {"0": 1, "1": 3}
    # Of (1/4, 3/4): client a has (0, 1), client b (1/2, 1/2), both at distance 1/4; the empty client has no distribution.
    assert found.labels.mean_distance == pytest.approx(0.25)
    assert found.labels.mean_labels_per_client == pytest.approx(1.5)


def test_a_former_partition_is_replaced_as_long_as_it_is_as_it_was_written(tmp_path):
    def deal(clients, fraction):
        parts = partition_dataset("digits", tmp_path / "out", strategy="iid", num_clients=clients, test_fraction=fraction)
        return {part: description.clients for part, description in parts.items()}

    assert deal(9, 0.5) == {"train": 9, "test": 9}
    assert deal(5, 0.0) == {"": 5}
    assert not (tmp_path / "out" / "train").exists()
    assert deal(7, 0.5) == {"train": 7, "test": 7}
    for change in (
        lambda: (tmp_path / "out" / "train" / "mine.tfrecord").write_bytes(b""),
        lambda: (tmp_path / "out" / "notes").write_text("mine"),
        lambda: next((tmp_path / "out" / "test").iterdir()).write_bytes(b"edited"),
        lambda: next((tmp_path / "out" / "test").iterdir()).unlink(),
        lambda: (tmp_path / "out" / "partition.json").write_text('{"producer": "odp-task data partition", "files": {}}'),
    ):
        change()
        with pytest.raises(errors.StorageError, match="holds files that are not a former output"):
            deal(7, 0.5)
        partition_dataset("digits", tmp_path / "out", strategy="iid", num_clients=7, test_fraction=0.5, overwrite=True)
