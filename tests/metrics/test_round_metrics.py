"""Metrics are found in the server's layout, read whatever form the server left them in, and exported without loss."""

import csv
import gzip
import math

import numpy as np
import pytest
from click.testing import CliRunner
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata

from odp_taskbuilder import errors
from odp_taskbuilder.cli.main import cli
from odp_taskbuilder.config.show import ResolvedValue
from odp_taskbuilder.config.spec import Origin
from odp_taskbuilder.data import tfrecord
from odp_taskbuilder.metrics.csv_export import write_csv
from odp_taskbuilder.metrics.plot import plot_runs
from odp_taskbuilder.metrics.reading import TaskFilter, read_runs
from odp_taskbuilder.metrics.run import TRAINING_BYTES, Run, format_metrics, parse_metrics
from odp_taskbuilder.metrics.run_facts import Mechanism, RunFacts
from odp_taskbuilder.metrics.table import format_run
from odp_taskbuilder.metrics.tensorboard import write_summaries

# As the published guide prints it, and as the server writes numbers that JSON lacks.
GUIDE = b'{"server/client_work/train/binary_accuracy":0.5384615659713745, "server/finalizer/update_non_finite":0.0}'
NOT_FINITE = b'{"server/eval/loss":NaN, "server/eval/auc-roc":Infinity, "server/eval/x":-Infinity, "server/eval/y":1.0E-5}'


def write(root, population, task, number, content):
    path = root / population / str(task) / str(number) / "s" / "0"
    path.mkdir(parents=True)
    (path / "metrics").write_bytes(content if isinstance(content, bytes) else format_metrics(content))


@pytest.fixture
def run_directory(tmp_path):
    """Training of rounds 1, 2, 10, 11 and evaluation of round 1, among the other files of the layout."""
    for number in (10, 1, 2, 11):
        write(tmp_path, "digits", 1, number, {"server/client_work/train/loss": 1.0 / number})
    write(tmp_path, "digits", 2, 1, {"server/eval/loss": 0.5})
    (tmp_path / "digits" / "1" / "1" / "s" / "0" / "checkpoint").write_bytes(b"x")
    (tmp_path / "digits" / "1" / "0" / "d" / "0").mkdir(parents=True)
    (tmp_path / "digits" / "1" / "0" / "d" / "0" / "metrics").write_bytes(b"not where the server writes metrics")
    return tmp_path


def test_the_servers_number_formats_are_read():
    assert parse_metrics(GUIDE)["server/client_work/train/binary_accuracy"] == 0.5384615659713745
    values = parse_metrics(gzip.compress(NOT_FINITE))
    assert math.isnan(values["server/eval/loss"])
    assert values["server/eval/auc-roc"] == math.inf
    assert values["server/eval/x"] == -math.inf
    assert values["server/eval/y"] == 1e-5


def test_what_is_written_is_in_the_servers_form():
    assert format_metrics({"a": 0.5, "b": math.nan, "c": math.inf}) == b'{"a":0.5, "b":NaN, "c":Infinity}'


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": "b"}', b'{"a": true}', b"\xff", gzip.compress(GUIDE)[:-9]])
def test_a_damaged_file_is_named(content, tmp_path):
    write(tmp_path, "digits", 1, 3, content)
    with pytest.raises(errors.ArtifactError, match="digits/1/3/s/0/metrics is no metrics file: "):
        read_runs([str(tmp_path)], TaskFilter())


@pytest.mark.parametrize("below", ["", "digits", "digits/1"])
def test_rounds_are_found_in_numerical_order_from_anywhere_above_them(below, run_directory):
    run = read_runs([str(run_directory / below)], TaskFilter())[0]
    assert run.name == "digits task 1"
    assert list(run.rounds) == [1, 2, 10, 11]
    assert run.rounds[10] == {"server/client_work/train/loss": 0.1}
    assert run.missing_rounds() == [3, 4, 5, 6, 7, 8, 9]


def test_tasks_are_chosen_by_population_and_id(run_directory):
    write(run_directory, "letters", 1, 1, {"a": 1.0})
    names = lambda wanted: [run.name for run in read_runs([str(run_directory)], wanted)]  # noqa: E731
    assert names(TaskFilter()) == ["digits task 1", "digits task 2", "letters task 1"]
    assert names(TaskFilter(population="digits")) == ["digits task 1", "digits task 2"]
    assert names(TaskFilter(task_id=1)) == ["digits task 1", "letters task 1"]
    with pytest.raises(errors.UsageError, match="holds no metrics of population 'digits' and task 3"):
        names(TaskFilter("digits", 3))


def test_several_runs_are_named_by_what_tells_them_apart(tmp_path):
    for name in ("a/plain", "a/private", "b/private"):
        write(tmp_path / name, "digits", 1, 1, {"loss": 1.0})
    sources = [str(tmp_path / name) for name in ("a/plain", "a/private", "b/private")]
    assert [run.name for run in read_runs(sources[:2], TaskFilter())] == ["plain", "private"]
    assert [run.name for run in read_runs(sources, TaskFilter())] == ["plain", sources[1], sources[2]]
    write(tmp_path / "a/plain", "digits", 2, 1, {"loss": 1.0})
    assert [run.name for run in read_runs(sources[:2], TaskFilter())] == ["plain task 1", "plain task 2", "private task 1"]


def test_a_place_without_metrics_is_an_error(tmp_path):
    with pytest.raises(errors.UsageError, match="holds no metrics"):
        read_runs([str(tmp_path)], TaskFilter())
    with pytest.raises(errors.StorageError, match="none.*No such file"):
        read_runs([str(tmp_path / "none")], TaskFilter())


RUNS = [
    Run(
        "plain",
        {
            1: {"server/client_work/train/loss": 1.5},
            2: {"server/client_work/train/loss": 0.1 + 0.2, "server/eval/auc-roc": math.nan},
        },
    ),
    Run("private", {2: {"server/eval/auc-roc": 0.75}}),
]


def test_csv_keeps_every_digit_and_shows_what_is_missing(tmp_path):
    write_csv(RUNS, tmp_path / "m.csv")
    with open(tmp_path / "m.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["run", "round", "server/client_work/train/loss", "server/eval/auc-roc"],
            ["plain", "1", "1.5", ""],
            ["plain", "2", "0.30000000000000004", "nan"],
            ["private", "2", "", "0.75"],
        ]


def test_tensorboard_finds_a_directory_per_run_with_scalars_by_round(tmp_path):
    write_summaries(RUNS, tmp_path)
    (file,) = (tmp_path / "plain").iterdir()
    assert file.name.startswith("events.out.tfevents.")
    events = [event_pb2.Event.FromString(record) for record in tfrecord.read_records(file)]
    assert events[0].file_version == "brain.Event:2"
    scalars = [(event.step, value.tag, value.simple_value) for event in events[1:] for value in event.summary.value]
    assert scalars[:2] == [(1, "server/client_work/train/loss", 1.5), (2, "server/client_work/train/loss", np.float32(0.3))]
    assert scalars[2][:2] == (2, "server/eval/auc-roc")
    assert math.isnan(scalars[2][2])


def hyperparameters(file):
    """What TensorBoard's HParams plugin reads of an event file: name -> value, and the line of its table."""
    values = [value for record in tfrecord.read_records(file) for value in event_pb2.Event.FromString(record).summary.value]
    (found,) = [value for value in values if value.metadata.plugin_data.plugin_name == hparams_metadata.PLUGIN_NAME]
    assert found.tag == hparams_metadata.SESSION_START_INFO_TAG
    assert found.WhichOneof("value") == "tensor"
    session = hparams_metadata.parse_session_start_info_plugin_data(found.metadata.plugin_data.content)
    return {name: value.number_value or value.string_value for name, value in session.hparams.items()}, session.group_name


def test_tensorboard_finds_the_hyperparameters_of_each_run_that_tells_them(tmp_path):
    facts = RunFacts(
        population="digits",
        options={"clients_per_round": 10, "seed": 3},
        clients=50,
        evaluation_clients=0,
        config=(
            ResolvedValue("federated_learning.learning_process.client_learning_rate", 0.25, Origin.CONFIG),
            ResolvedValue("federated_learning.learning_process.server_optimizer", "ADAM", Origin.DEFAULT),
            ResolvedValue("policies.dataset_policy.batch_size", 4, Origin.CONFIG),
            # As many as the budget asks for: the config does not say it.
            ResolvedValue("differential_privacy.noise_multiplier", None, Origin.DERIVED),
        ),
        client_plans={},
        mechanism=Mechanism("FIXED_GAUSSIAN", 0.75, 0.5),
    )
    for name in ("old", "private"):
        for task in (1, 2):
            write(tmp_path / name, "digits", task, 1, {"loss": 1.0})
    (tmp_path / "private" / "facts.json").write_bytes(facts.to_json())
    sources = [f"named={tmp_path / 'private'}", str(tmp_path / "old")]
    done = CliRunner().invoke(cli, ["metrics", *sources, "--logdir", str(tmp_path / "logs")])
    assert done.exit_code == 0, done.output
    expected = {
        "noise_multiplier": 0.75,
        "clip_norm": 0.5,
        "dp_aggregator": "FIXED_GAUSSIAN",
        "clients_per_round": 10.0,
        "seed": 3.0,
        "client_learning_rate": 0.25,
        "server_optimizer": "ADAM",
        "batch_size": 4.0,
    }
    for task in (1, 2):
        (file,) = (tmp_path / "logs" / f"named task {task}").iterdir()
        assert hyperparameters(file) == (expected, "named")
        (file,) = (tmp_path / "logs" / f"old task {task}").iterdir()
        assert b"_hparams_" not in file.read_bytes()


def test_summaries_stay_in_the_log_directory_whatever_the_runs_are_called(tmp_path):
    logdir = tmp_path / "logs"
    names = [str(tmp_path / "a" / "run"), "../b/run", "..", "/", "b_run", "plain task 1"]
    write_summaries([Run(name, {1: {"loss": 1.0}}) for name in names], logdir)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    directories = sorted(path.relative_to(logdir).as_posix() for path in logdir.rglob("events.*") for path in [path.parent])
    own = str(tmp_path / "a" / "run").strip("/").replace("/", "_")
    assert directories == sorted([own, "b_run", "run", "run (2)", "b_run (2)", "plain task 1"])


def test_a_repeated_export_takes_the_place_of_the_first(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "events.out.tfevents.1.host.2").write_bytes(b"of another program")
    for value in (1.0, 2.0):
        write_summaries([Run("plain", {1: {"loss": value}})], tmp_path)
    other, own = sorted((tmp_path / "plain").iterdir(), key=lambda path: path.suffix == ".odp-task")
    assert other.read_bytes() == b"of another program"
    events = [event_pb2.Event.FromString(record) for record in tfrecord.read_records(own)]
    assert [(event.step, event.summary.value[0].simple_value) for event in events[1:]] == [(1, 2.0)]


def test_the_table_shows_rounds_metrics_and_gaps():
    run = Run("plain", {1: {"server/client_work/train/loss": 1.5}, 3: {"server/eval/auc-roc": math.nan}, 7: {}})
    assert format_run(run) == (
        "plain (no metrics of round 2, 4-6)\n"
        "round  train/loss  eval/auc-roc\n"
        "    1         1.5             -\n"
        "    3           -           nan\n"
        "    7           -             -"
    )  # fmt: skip


def test_metrics_are_chosen_by_the_last_part_of_their_name():
    assert RUNS[0].only(["loss"]).metric_names() == ["server/client_work/train/loss"]
    assert RUNS[0].only(["eval/*"]).metric_names() == ["server/eval/auc-roc"]


def test_a_figure_has_a_panel_per_metric_and_a_line_per_run(tmp_path):
    plot_runs(RUNS, tmp_path / "m.svg")
    svg = (tmp_path / "m.svg").read_text()
    # matplotlib names the groups of an SVG; text is drawn as paths, and the text itself stands in a comment beside them.
    assert svg.count('<g id="axes_') == 2
    for text in ("train/loss", "eval/auc-roc", "plain", "private"):
        assert f"<!-- {text} -->" in svg
    plot_runs(RUNS, tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_are_plotted_over_what_training_transferred(tmp_path):
    runs = []
    for name, megabytes in (("plain", 4), ("compressed", 1)):
        rounds = {number: {"server/eval/loss": 1 / number, TRAINING_BYTES: float(number * megabytes << 20)} for number in (1, 2, 3)}
        runs.append(Run(name, rounds))
    plot_runs(runs, tmp_path / "m.svg", "bytes")
    svg = (tmp_path / "m.svg").read_text()
    assert svg.count('<g id="axes_') == 1
    # Up to 12 MiB, of which rounds know nothing.
    for text in ("eval/loss", "plain", "compressed", "MiB of files", "12"):
        assert f"<!-- {text} -->" in svg
    with pytest.raises(errors.UsageError, match="no metric to plot"):
        plot_runs([run.only([TRAINING_BYTES]) for run in runs], tmp_path / "m.svg", "bytes")


def test_an_impossible_figure_is_refused(tmp_path):
    for name in ("m.exe", "m"):
        with pytest.raises(errors.UsageError, match=f"Cannot plot to .*{name}: its suffix names no format") as raised:
            plot_runs(RUNS, tmp_path / name)
        assert ".pdf, " in raised.value.next_step and ".svg" in raised.value.next_step
    assert not list(tmp_path.iterdir())
    with pytest.raises(errors.UsageError, match="no metric to plot"):
        plot_runs([Run("empty", {1: {}})], tmp_path / "m.png")
    with pytest.raises(errors.StorageError, match="Cannot write"):
        plot_runs(RUNS, tmp_path / "none" / "m.png")


def test_what_a_simulation_adds_is_told_from_what_the_plan_publishes():
    run = Run("plain", {1: {"server/eval/loss": 1.0, "communication/broadcast_bytes": 2.0, "simulation/reports": 3.0}})
    assert run.published().metric_names() == ["server/eval/loss"]
    assert run.only(["broadcast_bytes"]).metric_names() == ["communication/broadcast_bytes"]


def drawn(tmp_path, monkeypatch, runs):
    """The panels of a figure: title -> the lines as (label, colour, style, x values)."""
    figures = []
    monkeypatch.setattr("odp_taskbuilder.base.figure_file.save_figure", lambda canvas, path: figures.append(canvas))
    left_out = plot_runs(runs, tmp_path / "m.png")
    panels = {
        axes.get_title(): [
            (line.get_label(), line.get_color(), line.get_linestyle(), line.get_xdata().tolist()) for line in axes.get_lines()
        ]
        for axes in figures[0].axes
    }
    return panels, left_out, figures[0]


def test_training_and_evaluation_of_a_run_share_panel_and_colour_over_training_rounds(tmp_path, monkeypatch):
    def tasks(group):
        training = {number: {"server/client_work/train/loss": 1.0, "server/finalizer/update_non_finite": 0.0} for number in (1, 2, 3)}
        evaluation = {number: {"server/eval/loss": 2.0} for number in (1, 2)}
        return [Run(f"{group} task 1", training, group), Run(f"{group} task 2", evaluation, group, {1: 4, 2: 8})]

    panels, left_out, _ = drawn(tmp_path, monkeypatch, [*tasks("a"), *tasks("b")])
    assert panels == {
        "loss": [
            ("a task 1", "C0", "-", [1, 2, 3]),
            ("a task 2", "C0", "--", [4, 8]),
            ("b task 1", "C1", "-", [1, 2, 3]),
            ("b task 2", "C1", "--", [4, 8]),
        ]
    }
    assert left_out == ["server/finalizer/update_non_finite"]


def test_metrics_that_are_all_zero_are_drawn_if_there_is_nothing_else(tmp_path, monkeypatch):
    panels, left_out, _ = drawn(tmp_path, monkeypatch, [Run("a", {1: {"errors": 0.0}, 2: {"errors": 0.0}})])
    assert (list(panels), left_out) == (["errors"], [])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8])
def test_panels_fill_the_width_of_the_sheet_in_every_row(count, tmp_path, monkeypatch):
    *_, canvas = drawn(tmp_path, monkeypatch, [Run("a", {1: {f"metric {i}": 1.0 for i in range(count)}})])
    places = [axes.get_subplotspec() for axes in canvas.axes]
    columns = places[0].get_gridspec().ncols
    for row in {place.rowspan.start for place in places}:
        covered = [column for place in places if place.rowspan.start == row for column in place.colspan]
        assert covered == list(range(columns))


def test_a_run_is_named_and_its_evaluations_know_their_training_rounds(tmp_path):
    for task, values in (("1", {"server/client_work/train/loss": 1.0}), ("2", {"server/eval/loss": 1.0, "simulation/checkpoint_round": 4.0})):
        folder = tmp_path / "run" / "digits" / task / "1" / "s" / "0"
        folder.mkdir(parents=True)
        (folder / "metrics").write_bytes(format_metrics(values))
    runs = read_runs([f"private={tmp_path / 'run'}"], TaskFilter())
    assert [(run.name, run.group, run.evaluated) for run in runs] == [
        ("private task 1", "private", {}),
        ("private task 2", "private", {1: 4}),
    ]
    # Without a name everything is as it was, and a path with an equals sign is a path.
    assert [run.name for run in read_runs([str(tmp_path / "run")], TaskFilter())] == ["digits task 1", "digits task 2"]
    (tmp_path / "run").rename(tmp_path / "a=b")
    assert read_runs([str(tmp_path / "a=b")], TaskFilter())[0].group == "a=b"
