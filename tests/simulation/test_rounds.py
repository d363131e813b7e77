"""The loop over rounds: what it keeps, resumes, counts and refuses. A scripted runner stands in for the plans, so that every
number is known."""

import dataclasses
import json
import pathlib

import pytest
from tensorboard.compat.proto import event_pb2

from odp_taskbuilder import errors
from odp_taskbuilder.config.spec import CheckpointSelector, DpAggregator, EligibilitySpec, PrivacySpec
from odp_taskbuilder.data import tfrecord
from odp_taskbuilder.data.client_data import ClientData
from odp_taskbuilder.metrics.run_facts import read_facts
from odp_taskbuilder.privacy import privacy_budget
from odp_taskbuilder.simulation.communication import Communication
from odp_taskbuilder.simulation.deployment import DeployedTask, Deployment
from odp_taskbuilder.simulation.jobs import BadClient
from odp_taskbuilder.simulation.plan_rounds import RoundResult
from odp_taskbuilder.simulation.round_options import RoundOptions
from odp_taskbuilder.simulation.rounds import Rounds
from odp_taskbuilder.simulation.run_directory import RunDirectory
from odp_taskbuilder.simulation.sampling import Sampling


class CountedClients(ClientData):
    """Clients c00, c01, ... with 0, 1, 2, ... examples."""

    source = "counted"
    version = "1"

    def __init__(self, count):
        self.client_ids = tuple(f"c{number:02d}" for number in range(count))

    def num_examples(self, client_id):
        return int(client_id[1:])

    def fingerprint(self):
        return self.version

    def examples(self, client_id):
        raise AssertionError("the loop reads no examples")


class ScriptedRunner:
    """Appends every cohort to the checkpoint, and fails as it is told to.

    Attributes:
      bad: clients that do not report.
      cohorts: (task id, server checkpoint, cohort) of every round.
    """

    def __init__(self, scratch, bad=(), fail_at=None):
        self._scratch = scratch
        self._bad = set(bad)
        self._fail_at = fail_at
        self.cohorts = []

    def run_round(self, task_id, number, server_checkpoint, client_ids):
        if len(self.cohorts) == self._fail_at:
            raise KeyboardInterrupt
        self.cohorts.append((task_id, server_checkpoint.read_text(), list(client_ids)))
        new_checkpoint = self._scratch / "new"
        new_checkpoint.write_text(f"{server_checkpoint.read_text()}+{','.join(client_ids)}")
        bad = tuple(BadClient(client, f"{client} is bad") for client in client_ids if client in self._bad)
        reports = len(client_ids) - len(bad)
        return RoundResult(
            {"server/loss": 1.0 / len(self.cohorts)},
            new_checkpoint,
            reports,
            bad,
            Communication(100 * len(client_ids), 10 * reports),
        )


TRAINING = DeployedTask(1, b"plan", b"client plan", report_goal=4, max_reports=6, features=())
EVALUATION = DeployedTask(2, b"eval plan", b"eval client plan", report_goal=3, max_reports=4, features=())
PRIVACY = PrivacySpec(
    aggregator=DpAggregator.FIXED_GAUSSIAN,
    skip_aggregator=False,
    skip_check=True,
    noise_multiplier=1.0,
    clip_norm=0.5,
    target_epsilon=6.0,
    delta=1e-6,
    rounds=20,
    report_goal=4,
    minimum_separation=1,
    population=100_000,
)


@pytest.fixture
def simulated(tmp_path):
    """Runs a simulation and returns (summary, runner, reports); by default without evaluation."""
    initial = tmp_path / "initial"
    initial.write_text("start")

    def run(
        rounds=4,
        clients=30,
        per_round=5,
        eligibility=EligibilitySpec(0, 0),  # noqa: B008
        evaluation=None,
        share=0.0,
        selector="round",
        privacy=None,
        name="run",
        runner=None,
        logdir=None,
        **options,
    ):
        deployment = Deployment(
            "digits",
            TRAINING,
            initial,
            20,
            eligibility,
            privacy,
            evaluation,
            share,
            CheckpointSelector(2, selector) if evaluation else None,
        )
        reports = []
        directory = RunDirectory(tmp_path / name, "digits")
        data = CountedClients(clients)
        loop = Rounds(
            deployment,
            data,
            data,
            RoundOptions(rounds=rounds, clients_per_round=per_round, **options),
            directory,
            on_round=reports.append,
            logdir=logdir,
        )
        runner = runner or ScriptedRunner(tmp_path)
        with directory.opened(loop.settings()):
            return loop.run(runner), runner, reports

    return run


def files(root: pathlib.Path):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_checkpoints_and_metrics_lie_where_the_server_puts_them(simulated, tmp_path):
    simulated(rounds=2, evaluation=EVALUATION, share=0.6)
    # Five training clients a round bring three evaluation clients, which is one evaluation round.
    assert set(files(tmp_path / "run")) == {
        "facts.json",
        "simulation.json",
        *(f"digits/1/{number}/s/0/checkpoint" for number in (0, 1, 2)),
        *(f"digits/1/{number}/s/0/metrics" for number in (1, 2)),
        *(f"digits/2/{number}/s/0/metrics" for number in (1, 2)),
    }


def test_every_round_starts_from_the_checkpoint_before_it(simulated):
    _, runner, _ = simulated(rounds=3)
    texts = [text for _, text, _ in runner.cohorts]
    assert texts[0] == "start"
    assert texts[1] == "start+" + ",".join(runner.cohorts[0][2])
    assert texts[2] == texts[1] + "+" + ",".join(runner.cohorts[1][2])


def test_evaluation_reads_the_checkpoint_that_its_selector_admits(simulated):
    _, runner, reports = simulated(rounds=5, evaluation=EVALUATION, share=0.6)
    evaluations = [report for report in reports if report.task == "evaluation"]
    # every_2_round: rounds 1, 3 and 5.
    assert [(report.number, report.checkpoint_round) for report in evaluations] == [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5)]
    trained = [text for task, text, _ in runner.cohorts if task == 1] + [None]
    evaluated = [text for task, text, _ in runner.cohorts if task == 2]
    assert evaluated[:4] == [trained[1], trained[1], trained[3], trained[3]]
    assert all(len(cohort) == EVALUATION.report_goal for task, _, cohort in runner.cohorts if task == 2)


def test_an_interrupted_run_resumes_to_the_same_bytes(simulated, tmp_path):
    arguments = {"rounds": 6, "evaluation": EVALUATION, "share": 0.9, "eligibility": EligibilitySpec(2, 5)}
    simulated(**arguments, name="whole")
    for fail_at in range(12):
        name = f"broken {fail_at}"
        with pytest.raises(KeyboardInterrupt):
            simulated(**arguments, name=name, runner=ScriptedRunner(tmp_path, fail_at=fail_at))
        _, resumed, _ = simulated(**arguments, name=name)
        # The scripted loss counts the rounds of its runner: everything but that is the same.
        whole, mended = files(tmp_path / "whole"), files(tmp_path / name)
        assert whole.keys() == mended.keys()
        assert all(whole[path] == mended[path] for path in whole if path.endswith("checkpoint"))
        finished = len([path for path in whole if path.endswith("metrics")]) - len(resumed.cohorts)
        assert finished == fail_at


def test_what_a_run_has_spent_is_told_when_it_has_ended(simulated, tmp_path):
    def told():
        facts = read_facts(str(tmp_path / "run"))
        return facts.rounds, facts.privacy

    with pytest.raises(KeyboardInterrupt):
        simulated(rounds=4, privacy=PRIVACY, runner=ScriptedRunner(tmp_path, fail_at=2))
    assert told() == (None, None)
    first = simulated(rounds=4, privacy=PRIVACY)[0].privacy
    assert told() == (4, first)
    with pytest.raises(KeyboardInterrupt):
        simulated(rounds=6, privacy=PRIVACY, runner=ScriptedRunner(tmp_path, fail_at=1))
    assert told() == (None, None)
    second = simulated(rounds=6, privacy=PRIVACY)[0].privacy
    assert told() == (6, second) and second.epsilon > first.epsilon
    # A command that is refused changes nothing.
    with pytest.raises(errors.UsageError, match="holds a run of 6 rounds"):
        simulated(rounds=5, privacy=PRIVACY)
    assert told() == (6, second)


def test_a_checkpoint_without_metrics_is_not_a_finished_round(simulated, tmp_path):
    simulated(rounds=3)
    (tmp_path / "run/digits/1/3/s/0/metrics").unlink()
    _, runner, reports = simulated(rounds=3)
    assert [report.number for report in reports] == [3]


def test_more_rounds_continue_a_run_and_other_settings_do_not(simulated, tmp_path):
    simulated(rounds=2)
    summary, _, reports = simulated(rounds=4)
    assert [report.number for report in reports] == [3, 4]
    assert summary.training.rounds == 4
    with pytest.raises(errors.UsageError, match="other settings: --seed was 0 and is 1"):
        simulated(rounds=4, seed=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(errors.UsageError, match="is not empty and holds no run"):
        simulated(name="other")


def test_other_examples_of_the_same_clients_are_other_data(simulated, monkeypatch):
    simulated(rounds=2)
    monkeypatch.setattr(CountedClients, "version", "2")
    with pytest.raises(errors.UsageError, match="other settings: --data is other data, or its examples were changed"):
        simulated(rounds=4)


def test_fewer_rounds_than_the_run_has_are_refused(simulated):
    simulated(rounds=4, privacy=PRIVACY)
    # What its model has spent is that of four rounds.
    with pytest.raises(errors.UsageError, match="holds a run of 4 rounds; 3 are asked for") as raised:
        simulated(rounds=3, privacy=PRIVACY)
    assert "4 --rounds or more" in raised.value.next_step
    assert simulated(rounds=4, privacy=PRIVACY)[0].training.rounds == 4


def test_a_run_has_one_command_at_a_time(simulated, tmp_path):
    simulated(rounds=2)
    settings = json.loads((tmp_path / "run" / "simulation.json").read_bytes())
    with RunDirectory(tmp_path / "run", "digits").opened(settings):
        with pytest.raises(errors.StorageError, match="Another command is running in .*/run"):
            simulated(rounds=4)
    assert simulated(rounds=4)[0].training.rounds == 4


class FailingWrites:
    """Stands in for the file system where a checkpoint is copied to."""

    def __init__(self, fail_at):
        self._fail_at = fail_at
        self._copies = 0

    def __call__(self, source, target):
        self._copies += 1
        if self._copies == self._fail_at:
            raise OSError(28, "No space left on device")
        target.write(source.read())


@pytest.mark.parametrize(
    "copy, round_, next_step", [(1, 0, None), (3, 2, "The rounds that are finished are kept; resume with the same command.")]
)
def test_only_a_run_that_began_is_to_be_resumed(copy, round_, next_step, simulated, monkeypatch):
    monkeypatch.setattr("odp_taskbuilder.simulation.run_directory.shutil.copyfileobj", FailingWrites(copy))
    with pytest.raises(errors.StorageError, match=f"Cannot write .*/{round_}/s/0/checkpoint: No space left") as raised:
        simulated(rounds=4)
    assert raised.value.next_step == next_step


def test_what_cannot_be_read_is_not_said_to_be_written(simulated, tmp_path):
    (tmp_path / "initial").unlink()
    with pytest.raises(errors.StorageError, match="Cannot read .*/initial: No such file") as raised:
        simulated(rounds=1)
    assert raised.value.next_step is None
    (tmp_path / "initial").write_text("start")
    simulated(rounds=1)
    (tmp_path / "run/digits/1/1/s/0/metrics").unlink()
    (tmp_path / "run/digits/1/1/s/0/metrics").mkdir()
    with pytest.raises(errors.StorageError, match="Cannot read .*/digits/1/1/s/0/metrics: Is a directory") as raised:
        simulated(rounds=1)
    assert raised.value.next_step is None


def test_communication_is_counted_per_client_per_round_and_in_all(simulated, tmp_path):
    runner = ScriptedRunner(tmp_path, bad=["c07"])
    summary, runner, reports = simulated(rounds=20, runner=runner, skip_bad_clients=True)
    bad_rounds = sum("c07" in cohort for _, _, cohort in runner.cohorts)
    assert bad_rounds > 0
    assert summary.bad_clients == bad_rounds
    assert summary.training.communication == Communication(broadcast=20 * 5 * 100, aggregated=(20 * 5 - bad_rounds) * 10)
    last = json.loads((tmp_path / "run/digits/1/20/s/0/metrics").read_bytes())
    assert last["communication/broadcast_bytes_per_client"] == 100
    assert last["communication/broadcast_bits_per_client"] == 800
    assert last["communication/aggregated_bytes_per_client"] == 10
    assert last["communication/broadcast_bytes"] == 500
    assert last["communication/broadcast_bytes_cumulative"] == 10_000
    assert last["communication/aggregated_bits_cumulative"] == 8 * 10 * (100 - bad_rounds)
    assert last["simulation/reports"] + last["simulation/bad_clients"] == 5
    # A resumed run goes on counting.
    assert simulated(rounds=20, skip_bad_clients=True)[0].training.communication == summary.training.communication


def test_clients_with_few_examples_are_not_asked(simulated):
    _, runner, _ = simulated(rounds=20, eligibility=EligibilitySpec(minimum_separation=0, min_example_count=20))
    drawn = {client for _, _, cohort in runner.cohorts for client in cohort}
    assert drawn == {f"c{number}" for number in range(20, 30)}


def test_minimum_separation_is_kept(simulated):
    _, runner, _ = simulated(rounds=20, clients=15, eligibility=EligibilitySpec(minimum_separation=3, min_example_count=0))
    cohorts = [set(cohort) for _, _, cohort in runner.cohorts]
    # Fifteen clients, five a round, three rounds apart: everybody in turn.
    assert all(not (first & second) for first, second in zip(cohorts, cohorts[1:]))
    assert all(cohort == cohorts[index + 3] for index, cohort in enumerate(cohorts[:-3]))


def test_neither_policy_applies_to_evaluation(simulated):
    _, runner, _ = simulated(
        rounds=20,
        clients=30,
        evaluation=EVALUATION,
        share=2.4,
        eligibility=EligibilitySpec(minimum_separation=2, min_example_count=20),
    )
    evaluated = [cohort for task, _, cohort in runner.cohorts if task == 2]
    # Twenty of thirty clients have fewer than 20 examples; training draws none of them.
    assert len({client for cohort in evaluated for client in cohort if client < "c20"}) > 10


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rounds": 21}, "21 rounds are asked for; the task ends after 20"),
        (
            {"per_round": 3},
            r"3 clients per round are asked for; the task's rounds take from 4 \(the report goal\) to 6 reports",
        ),
        ({"per_round": 7}, "7 clients per round"),
        ({"clients": 4}, "counted has 4 clients: too few for rounds of 5"),
        (
            {"eligibility": EligibilitySpec(0, 27)},
            "counted has 30 clients, of which 3 hold as many examples as the task asks for: too few",
        ),
        ({"clients": 5, "eligibility": EligibilitySpec(2, 0)}, "Round 2 needs 5 clients; 0 of 5 may take part"),
        (
            {"evaluation": dataclasses.replace(EVALUATION, report_goal=31), "share": 0.5},
            "counted has 30 clients: fewer than the report goal of the evaluation task, which is 31",
        ),
    ],
)
def test_what_no_server_would_run_is_refused(arguments, message, simulated):
    with pytest.raises(errors.UsageError, match=message):
        simulated(**arguments)


def test_a_round_without_its_report_goal_does_not_complete(simulated, tmp_path):
    runner = ScriptedRunner(tmp_path, bad=["c00", "c01", "c02", "c03", "c04"])
    with pytest.raises(
        errors.UsageError,
        match="In training round 1 0 of 5 clients reported; a server completes no round with fewer than 4. .* c00 is bad",
    ):
        simulated(clients=5, runner=runner, skip_bad_clients=True)
    assert not (tmp_path / "run/digits/1/1/s/0/metrics").exists()
    # Five are asked and four are enough: over-selection.
    summary, _, reports = simulated(
        clients=5, rounds=1, name="over", runner=ScriptedRunner(tmp_path, bad=["c00"]), skip_bad_clients=True
    )
    assert (summary.bad_clients, reports[0].metrics["simulation/reports"]) == (1, 4)


def test_poisson_rounds_complete_with_whoever_comes(simulated):
    summary, runner, _ = simulated(rounds=20, per_round=2, sampling=Sampling.POISSON)
    sizes = {len(cohort) for _, _, cohort in runner.cohorts}
    assert min(sizes) < 2 < max(sizes)
    assert summary.training.rounds == 20


def test_a_round_that_nobody_reports_in_is_noted_and_counted(simulated, tmp_path):
    options = {"rounds": 3, "sampling": Sampling.POISSON, "skip_bad_clients": True, "seed": 1}
    everybody = [f"c{number:02d}" for number in range(30)]
    summary, _, reports = simulated(runner=ScriptedRunner(tmp_path, bad=everybody), **options)
    assert [report.without_effect for report in reports] == ["no client reported"] * 3
    assert summary.rounds_without_effect == 3
    # A resumed run counts those that it did not run itself.
    assert simulated(**options)[0].rounds_without_effect == 3
    summary, _, reports = simulated(name="sound", **options)
    assert [report.without_effect for report in reports] == [None] * 3
    assert summary.rounds_without_effect == 0


def test_epsilon_is_that_of_the_rounds_so_far(simulated):
    summary, _, reports = simulated(rounds=20, privacy=PRIVACY)
    assert summary.privacy.epsilon == privacy_budget(PRIVACY).epsilon
    assert (summary.privacy.delta, summary.privacy.rounds) == (PRIVACY.delta, 20)
    shown = {report.number: report.privacy.epsilon for report in reports if report.privacy is not None}
    assert list(shown) == list(range(2, 21, 2))
    for number in (2, 10, 20):
        exact = privacy_budget(dataclasses.replace(PRIVACY, rounds=number)).epsilon
        assert exact <= shown[number] <= 1.002 * exact
    assert simulated(name="plain")[0].privacy is None


def test_epsilon_stands_beside_that_of_the_few_clients_simulated(simulated):
    spent = simulated(rounds=20, privacy=PRIVACY)[0].privacy
    # 5 of the 30 clients take part in a round, whatever the report goal.
    of_few = privacy_budget(dataclasses.replace(PRIVACY, population=30, report_goal=5))
    assert (spent.simulated_clients, spent.simulated_epsilon) == (30, of_few.epsilon)
    assert spent.meant_for == "for a stated population of 100,000 devices"
    assert "4 of 100,000 devices on average, or here 5 of 30. These rounds drew cohorts of fixed size" in spent.assumptions[0]
    spent = simulated(rounds=20, privacy=PRIVACY, sampling=Sampling.POISSON, name="poisson", skip_bad_clients=True)[0].privacy
    assert spent.assumptions[0].endswith("or here 5 of 30.")
    # As many clients as the task is meant for: one number says it all.
    spent = simulated(rounds=2, privacy=dataclasses.replace(PRIVACY, population=30), name="all")[0].privacy
    assert (spent.simulated_clients, spent.simulated_epsilon) == (None, None)


def test_the_epsilon_of_a_tree_comes_with_the_pace_that_it_assumes(simulated):
    tree = dataclasses.replace(
        PRIVACY, aggregator=DpAggregator.TREE_AGGREGATION, minimum_separation=20, rounds=20, rounds_per_day=1.0
    )
    summary, *_ = simulated(rounds=20, privacy=tree)
    assert (summary.privacy.epsilon, summary.privacy.meant_for) == (privacy_budget(tree).epsilon, "whatever the population")
    assert summary.privacy.simulated_epsilon is None
    assert summary.privacy.epsilon > privacy_budget(dataclasses.replace(tree, rounds_per_day=24.0)).epsilon
    assert "stated to come at a pace of 1 a day or more, so that it remembers 7 of them" in summary.privacy.assumptions[0]


def test_tensorboard_gets_every_round_as_it_is_finished(simulated, tmp_path):
    # A second run takes the place of the first.
    for name in ("first", "second"):
        simulated(rounds=3, evaluation=EVALUATION, share=0.6, name=name, logdir=tmp_path / "logs")
    for kind in ("training", "evaluation"):
        (file,) = (tmp_path / "logs" / kind).iterdir()
        _, hyperparameters, *events = [event_pb2.Event.FromString(record) for record in tfrecord.read_records(file)]
        assert [value.metadata.plugin_data.plugin_name for value in hyperparameters.summary.value] == ["hparams"]
        assert [event.step for event in events] == [1, 2, 3]
        assert {value.tag for value in events[0].summary.value} > {
            "server/loss",
            "communication/broadcast_bytes",
            "simulation/reports",
        }
