"""A run directory tells what its run was, and `odp-task report` shows it."""

import re

from click.testing import CliRunner

from odp_taskbuilder.artifacts import manifest
from odp_taskbuilder.cli.main import cli
from odp_taskbuilder.metrics.reading import TaskFilter, read_runs
from odp_taskbuilder.metrics.run_facts import read_facts
from odp_taskbuilder.ops.report import OpKind, ops_report
from odp_taskbuilder.privacy.rounding import rounded_up
from odp_taskbuilder.proto import plan_pb2


def test_a_simulation_and_its_report_agree_with_artifacts_metrics_and_summary(run, tasks, tmp_path):
    plain, plain_directory = run("plain", "without", rounds=2)
    private, directory = run("private", "private", rounds=2)
    facts = read_facts(str(directory))
    built = tasks / "private" / "digits"
    assert facts.config == tuple(manifest.read_manifest(built).config) != ()
    assert (facts.population, facts.clients, facts.evaluation_clients, facts.rounds) == ("digits", 50, 50, 2)
    assert (facts.mechanism.noise_multiplier, facts.mechanism.clip_norm) == (0.5, 0.5)
    assert facts.privacy == private.privacy and facts.privacy.simulated_clients == 50
    content = (built / "client_only_plan.pb").read_bytes()
    ops = ops_report(plan_pb2.ClientOnlyPlan.FromString(content).tflite_graph)
    plan = facts.client_plans["training"]
    assert (plan.size, plan.min_module_version) == (len(content), ops.min_module_version)
    assert plan.builtin_ops == sum(use.count for use in ops.ops if use.kind is OpKind.BUILTIN)
    assert plan.other_ops == {use.op: use.count for use in ops.ops if use.kind is OpKind.FLEX} != {}
    assert facts.hyperparameters() == {
        "noise_multiplier": 0.5,
        "clip_norm": 0.5,
        "dp_aggregator": "FIXED_GAUSSIAN",
        "clients_per_round": 10.0,
        "seed": 0.0,
        "algorithm": "FED_AVG",
        "client_optimizer": "SGD",
        "client_learning_rate": 0.1,
        "server_optimizer": "SGD",
        "server_learning_rate": 1.0,
        "batch_size": 4.0,
        "max_training_batches_per_client": -1.0,
    }

    page = tmp_path / "report.html"
    done = CliRunner().invoke(cli, ["report", str(plain_directory), f"with noise={directory}", "--output", str(page)])
    assert done.exit_code == 0, done.output
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.read_text().partition("</style>")[2]))
    (loss,) = [
        run_.rounds[2]["server/client_work/train/loss"] for run_ in read_runs([str(directory)], TaskFilter()) if run_.name.endswith("task 1")
    ]
    for part in (
        f"train/loss, last round {plain.training.metrics['server/client_work/train/loss']:.6g} {loss:.6g} ",
        "Epsilon none: no DP aggregator",
        f"Epsilon {rounded_up(private.privacy.epsilon):.7g} for an assumed population of 3,000,000 devices; "
        f"{rounded_up(private.privacy.simulated_epsilon):.7g} for a population of 50",
        "for a population of 50, the clients of this simulation.",
        facts.privacy.assumptions[0],
        f"with noise, training 2 {private.training.metrics['communication/broadcast_bytes_per_client']:,.0f} ",
        f" {private.training.communication.aggregated:,} ",
        f"client plan {len(content):,} bytes",
        "privacy.skip_dp_aggregator true option false default ",
    ):
        assert part in text, part
