"""Every point where the published guides and the schema differ, and what else users write (spec: task_config.md, section 7).

Class A: accepted, with one notice. Class B: refused, with the suggestion that helps.
"""

import pytest

from odp_taskbuilder import config, errors
from odp_taskbuilder.model.input_spec import ModelSpec, TensorInfo
from odp_taskbuilder.model.starter_config import starter_configs

# Complete and valid; the tests change one thing each.
VALID = """\
mode: TRAINING_AND_EVAL
population_name: "my_new_population"
policies {
  min_separation_policy { minimum_separation: 3 }
  model_release_policy { num_max_training_rounds: 1000 }
}
federated_learning {
  learning_process {
    type: FED_AVG
    server_learning_rate: 1
    runtime_config { report_goal: 2000 }
    metrics { name: "auc-roc" }
  }
  evaluation {
    source_training_task_id: 1
    evaluation_traffic: 0.1
    report_goal: 200
  }
}
differential_privacy {
  type: FIXED_GAUSSIAN
  clip_norm: 0.1
}
"""

VALID_JSON = """\
{
  "mode": "TRAINING_AND_EVAL",
  "population_name": "my_new_population",
  "policies": {
    "minSeparationPolicy": {"minimumSeparation": 3},
    "model_release_policy": {"num_max_training_rounds": "1000"}
  },
  "federated_learning": {
    "learning_process": {
      "type": "FED_AVG",
      "server_learning_rate": 1,
      "runtime_config": {"report_goal": 2000},
      "metrics": [{"name": "auc-roc"}]
    },
    "evaluation": {"source_training_task_id": 1, "evaluation_traffic": 0.1, "report_goal": 200}
  },
  "differential_privacy": {"type": "FIXED_GAUSSIAN", "clip_norm": 0.1}
}
"""


def problems_of(text, source="job.pbtxt", **options):
    with pytest.raises(errors.ConfigError) as caught:
        config.resolve(config.parse_config(text, source), config.ResolveOptions(**options))
    return caught.value.problems


def only_problem(text, **options):
    (problem,) = problems_of(text, **options)
    return problem


def sentence(problem):
    return f"{problem.message} {problem.suggestion}" if problem.suggestion else problem.message


def test_the_config_that_the_other_tests_change_is_accepted():
    assert config.resolve(config.parse_config(VALID, "job.pbtxt")).notices == ()


@pytest.mark.parametrize(
    ("old", "new", "notice"),
    [
        pytest.param(
            "type: FIXED_GAUSSIAN", "type: fixed_gaussian", "Line 21: fixed_gaussian was read as FIXED_GAUSSIAN.", id="row 5"
        ),
        pytest.param(
            "mode: TRAINING_AND_EVAL",
            "mode: training_and_eval",
            "Line 1: training_and_eval was read as TRAINING_AND_EVAL.",
            id="mode in lower case",
        ),
        pytest.param(
            VALID,
            "{\n" + VALID + "}\n",
            "The pair of braces around the whole config was ignored: text proto has none.",
            id="row 6",
        ),
        pytest.param(VALID, "\ufeff" + VALID, "The byte order mark at the start was ignored.", id="byte order mark"),
    ],
)
def test_repairs_that_cannot_change_the_meaning_are_made_and_told(old, new, notice):
    spec = config.resolve(config.parse_config(VALID.replace(old, new), "job.pbtxt"))
    assert spec.notices == (notice,)
    assert _values(spec) == _values(config.resolve(config.parse_config(VALID)))


@pytest.mark.parametrize(
    ("text", "name", "notice"),
    [
        pytest.param(
            VALID,
            "fcp_server_config.json",
            "fcp_server_config.json holds text proto, whatever its name says, and was read as that.",
            id="row 11",
        ),
        pytest.param(
            VALID_JSON,
            "job.pbtxt",
            "job.pbtxt holds JSON, whatever its name says, and was read as that.",
            id="row 11, other way round",
        ),
    ],
)
def test_the_content_decides_how_a_config_is_read_and_not_its_name(text, name, notice):
    spec = config.resolve(config.parse_config(text, name))
    assert spec.notices == (notice,)
    assert _values(spec) == _values(config.resolve(config.parse_config(VALID)))


def test_row_12_a_local_path_is_read(tmp_path):
    path = tmp_path / "job.pbtxt"
    path.write_text(VALID)
    assert config.resolve(config.load_config(path)).notices == ()


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "text"),
    [
        pytest.param(
            "server_learning_rate: 1", "sever_learning_rate: 1", 10, 5,
            "learning_process has no field 'sever_learning_rate'. Did you mean 'server_learning_rate'?", id="row 1",
        ),
        pytest.param("type: FED_AVG", "type: FED_SDG", 9, 11, "type has no value 'FED_SDG'. Did you mean FED_SGD?", id="row 2"),
        pytest.param("type: FIXED_GAUSSIAN", "type: TREE", 21, 9, "type has no value 'TREE'. Did you mean TREE_AGGREGATION?", id="row 3"),
        pytest.param("type: FIXED_GAUSSIAN", "type: ADADPTIVE_TREE", 21, 9, "type has no value 'ADADPTIVE_TREE'. Did you mean ADAPTIVE_TREE?", id="row 4"),
        pytest.param(
            "federated_learning {", "federated_learning { type: FED_AVG", 7, 22,
            "federated_learning has no field 'type'. 'type' belongs inside federated_learning.learning_process.", id="row 7",
        ),
        pytest.param(
            "federated_learning {", "federated_learning { type: TREE_AGGREGATION", 7, 22,
            "federated_learning has no field 'type'. 'type' belongs inside differential_privacy.", id="row 7, by value",
        ),
        pytest.param(
            "    source_training_task_id: 1\n", "", 14, 3,
            "[Invalid task config]: key `source_training_task_id` has a bad value: `0` in `evaluation`. "
            "source_training_task_id is required and must be a positive number. Set it to 1 for a population without earlier tasks.", id="row 8",
        ),
        pytest.param(
            "num_max_training_rounds: 1000", "num_max_training_rounds: 1000 dp_delta: 0.000001", 5, 66,
            "[Invalid task config]: key `dp_delta` has a bad value: `1e-06` in `model_release_policy`. dp_delta must be a float number "
            "between 0 and 3.333333E-07 Delta must not exceed 1 / population: set it to 3.3e-7, or leave the field out.", id="row 9",
        ),
        pytest.param("clip_norm: 0.1", "clip_norm: 0.1 noise_multipiler: 0.1", 22, 18, "differential_privacy has no field 'noise_multipiler'. Did you mean 'noise_multiplier'?", id="row 16"),
        pytest.param("mode: TRAINING_AND_EVAL", 'mode: "TRAINING_AND_EVAL"', 1, 7, 'mode takes a name without quotes, not "TRAINING_AND_EVAL". Remove the quotes: mode: TRAINING_AND_EVAL', id="quoted enum"),
        pytest.param("server_learning_rate: 1", 'server_learning_rate: "1"', 10, 27, 'server_learning_rate takes a number, not "1". Remove the quotes: server_learning_rate: 1', id="quoted number"),
        pytest.param("report_goal: 2000", "report_goal: 2.0", 11, 35, "report_goal takes a whole number, not 2.0. Write a whole number: report_goal: 2", id="fraction"),
        pytest.param(
            "minimum_separation: 3 }", "minimum_separation: 3 } data_availability_policy { min_example_count: 3000000000 }", 4, 97,
            "min_example_count must be between -2147483648 and 2147483647, not 3000000000.", id="out of range",
        ),
        pytest.param("mode: TRAINING_AND_EVAL", "mode = TRAINING_AND_EVAL", 1, 6, "A name and its value are separated by a colon, not by '='. Write mode: TRAINING_AND_EVAL", id="equals sign"),
        pytest.param("mode:", "// comment { }\nmode:", 1, 1, "Comments start with '#'. Write # in place of //", id="comment"),
        pytest.param("population_name", "populationName", 2, 1, "task_config has no field 'populationName'. Did you mean 'population_name'?", id="JSON name"),
        pytest.param("\n}\n", "\n", 20, 22, "The block 'differential_privacy' that starts in line 20 is not closed. Add a } behind its last field.", id="missing brace"),
        pytest.param("differential_privacy", "} differential_privacy", 20, 1, "This closing brace has no opening one. Remove it, or look for the block that was to stay open.", id="brace too many"),
        pytest.param("population_name", "mode: EVAL_ONLY\npopulation_name", 2, 1, "'mode' was given in line 1 already. Remove one of the two.", id="scalar twice"),
        pytest.param("differential_privacy", "policies { }\ndifferential_privacy", 20, 1, "'policies' was given in line 3 already. Merge the two blocks.", id="block twice"),
        pytest.param("population_name", "use_daf: yes\npopulation_name", 2, 10, "use_daf is true or false, not yes. Write use_daf: true or use_daf: false", id="yes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place_and_what_was_meant(old, new, line, column, text):
    changed = _replace_last(VALID, old, new)
    problem = only_problem(changed)
    assert sentence(problem) == text
    assert (problem.line, problem.column) == (line, column)
    assert problem.source_line == changed.splitlines()[line - 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            '"mode": "TRAINING_AND_EVAL"', "This looks like JSON without its braces.", id="quoted names without braces"
        ),
        pytest.param(
            '{mode: "TRAINING_ONLY"}', 'mode takes a name without quotes, not "TRAINING_ONLY".', id="JSON with unquoted names"
        ),
        pytest.param("", "The task config is empty.", id="empty"),
        pytest.param("# nothing\n", "The task config is empty.", id="only a comment"),
    ],
)
def test_other_things_that_users_write_are_refused_by_name(text, expected):
    assert expected in [problem.message for problem in problems_of(text)]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("FED_AVG", "FED_SDG", "type has no value 'FED_SDG'. Did you mean FED_SGD?"),
        (
            "server_learning",
            "sever_learning",
            "learning_process has no field 'sever_learning_rate'. Did you mean 'server_learning_rate'?",
        ),
        ("minSeparationPolicy", "minSepPolicy", "policies has no field 'minSepPolicy'. Did you mean 'min_separation_policy'?"),
        ('[{"name": "auc-roc"}]', '{"name": "auc-roc"}', 'metrics takes a list. Write "metrics": [...]'),
        (
            '"clip_norm": 0.1}',
            '"clip_norm": 0.1,}',
            "This is not valid JSON: Expecting property name enclosed in double quotes. "
            "JSON has no comma behind the last field of an object or the last item of a list.",
        ),
    ],
)
def test_json_gets_the_same_suggestions_with_line_and_column(old, new, text):
    changed = VALID_JSON.replace(old, new)
    problem = problems_of(changed, source="job.json")[0]
    assert sentence(problem) == text
    assert problem.source_line == changed.splitlines()[problem.line - 1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mode: TRAINING_AND_EVAL\n", "mode: TRAINING_AND_EVAL,\n"),
        ("mode: TRAINING_AND_EVAL\n", "mode: TRAINING_AND_EVAL;\n"),
        ("policies {", "policies: {"),
        ('metrics { name: "auc-roc" }', "metrics < name: 'auc-roc' >"),
        ('metrics { name: "auc-roc" }', 'metrics: [{name: "auc-roc"}]'),
        ('"auc-roc"', '"auc"  # in two pieces\n"-roc"'),
        ("report_goal: 2000", "report_goal: 0x7d0"),
        ("TRAINING_AND_EVAL", "2"),
        ("\n", "\r\n"),
    ],
)
def test_all_ways_of_writing_text_proto_are_accepted(old, new):
    spec = config.resolve(config.parse_config(VALID.replace(old, new)))
    assert (spec.notices, _values(spec)) == ((), _values(config.resolve(config.parse_config(VALID))))


def test_row_10_too_little_noise_is_left_to_the_accounting():
    spec = config.resolve(config.parse_config(VALID.replace("clip_norm: 0.1", "clip_norm: 0.1 noise_multiplier: 0.1")))
    assert spec.privacy.noise_multiplier == 0.1


def test_row_13_leaving_out_the_evaluation_does_not_choose_the_mode():
    start, end = VALID.index("  evaluation {"), VALID.index("}\ndifferential_privacy")
    goal = next(p for p in problems_of(VALID[:start] + VALID[end:]) if p.path.endswith("report_goal"))
    assert goal.message == (
        "[Invalid task config]: key `report_goal` has a bad value: `0` in `evaluation`. "
        "report_goal is required and must be set to an integer strictly greater than zero."
    )
    assert goal.suggestion == "The mode decides which tasks are made: TRAINING_ONLY needs no evaluation."


def test_rows_14_and_15_the_starter_config_says_what_selector_and_traffic_do():
    tensor = TensorInfo("float32", (None, 1))
    text = starter_configs(ModelSpec(tensor, tensor, tensor), "p").config
    assert (
        "# Checkpoints of the last 24 hours are put into buckets of k rounds (every_k_round) or k hours (every_k_hour)" in text
    )
    assert "0.1 becomes a weight of 11 beside 100 for training" in text


def test_row_17_a_placeholder_that_is_left_is_found_before_building():
    text = VALID.replace(
        "    metrics {",
        '    artifact_building { plan_url: "{storage_path}/plan.pb" client_plan_url: "a" checkpoint_url: "b" }\n    metrics {',
    )
    text = text.replace("mode: TRAINING_AND_EVAL", "mode: TRAINING_ONLY")
    problem = only_problem(text, require_artifact_urls=True)
    assert problem.message == "artifact_building.plan_url still contains the placeholder {storage_path}"
    assert (problem.line, problem.path) == (12, "federated_learning.learning_process.artifact_building.plan_url")
    spec = config.resolve(
        config.parse_config(text), config.ResolveOptions(require_artifact_urls=True, storage_path="gs://bucket/run/")
    )
    assert spec.training.urls.plan == "gs://bucket/run/plan.pb"


def test_row_18_the_sample_report_cannot_come_from_a_config():
    text = VALID.replace(
        "num_max_training_rounds: 1000", "num_max_training_rounds: 10000 dp_target_epsilon: 6.4 dp_delta: 1e-6"
    )
    assert only_problem(text).path == "policies.model_release_policy.dp_delta"


def test_all_faults_of_a_config_come_at_once_in_reading_order():
    text = VALID.replace("type: FED_AVG", "type: FED_SDG").replace("server_learning_rate: 1", "sever_learning_rate: 3")
    text = text.replace("report_goal: 200\n", "report_goal: -1\n").replace("type: FIXED", "typ: FIXED")
    assert [(p.line, sentence(p)) for p in problems_of(text)] == [
        (9, "type has no value 'FED_SDG'. Did you mean FED_SGD?"),
        (10, "learning_process has no field 'sever_learning_rate'. Did you mean 'server_learning_rate'?"),
        (10, "[Invalid task config]: key `server_learning_rate` has a bad value: `3.0` in `learning_process`. server_learning_rate must be a probability."),
        (17, "[Invalid task config]: key `report_goal` has a bad value: `-1` in `evaluation`. report_goal is required and must be set to an "
             "integer strictly greater than zero. The mode decides which tasks are made: TRAINING_ONLY needs no evaluation."),
        (21, "differential_privacy has no field 'typ'. Did you mean 'type'?"),
    ]  # fmt: skip


def test_a_value_that_could_not_be_read_is_not_called_missing_as_well():
    text = VALID.replace("report_goal: 2000", "report_goal: 2e3").replace("population_name:", "population:")
    assert [p.message for p in problems_of(text)] == [
        "task_config has no field 'population'.",
        "report_goal takes a whole number, not 2e3.",
    ]


def test_the_message_shows_file_place_line_caret_path_and_advice():
    with pytest.raises(errors.ConfigError) as caught:
        config.resolve(config.parse_config(VALID.replace("server_learning", "\tsever_learning"), "dir/job.pbtxt"))
    assert str(caught.value) == (
        "dir/job.pbtxt:10:6: learning_process has no field 'sever_learning_rate'.\n"
        "        \tsever_learning_rate: 1\n"
        "        \t^\n"
        "    at federated_learning.learning_process.sever_learning_rate\n"
        "    Did you mean 'server_learning_rate'?"
    )


class TestGuideFiles:
    """The examples as printed."""

    def test_the_full_example_of_the_job_page_has_one_misspelling(self, golden):
        path = golden / "guide" / "job_guide_full.pbtxt"
        problem = only_problem(path.read_bytes())
        assert sentence(problem) == "learning_process has no field 'sever_learning_rate'. Did you mean 'server_learning_rate'?"
        spec = config.resolve(config.parse_config(path.read_text().replace("sever_learning_rate", "server_learning_rate")))
        assert spec.population_name == "my_new_population"
        assert spec.learning.server_optimizer == config.spec.OptimizerSpec(config.spec.OptimizerKind.ADAM, 1.0)
        assert spec.learning.metrics == ("auc-roc", "binary_accuracy")
        assert (spec.privacy.noise_multiplier, spec.privacy.clip_norm, spec.num_rounds) == (0.1, 0.1, 1000)
        assert spec.evaluation.rounds.traffic_weight == 11

    def test_the_example_of_the_developer_page_has_a_misplaced_field_and_lacks_an_id(self, golden):
        path = golden / "guide" / "developer_guide_full.json"
        misplaced, missing = problems_of(path.read_bytes())
        assert (
            sentence(misplaced)
            == "federated_learning has no field 'type'. 'type' belongs inside federated_learning.learning_process."
        )
        assert missing.path == "federated_learning.evaluation.source_training_task_id"
        assert missing.suggestion == "Set it to 1 for a population without earlier tasks."
        text = path.read_text().replace("type: FED_AVG\nlearning_process {", "learning_process {\ntype: FED_AVG")
        text = text.replace("evaluation {", "evaluation {\nsource_training_task_id: 1", 1)
        spec = config.resolve(config.parse_config(text, path.name))
        assert (spec.population_name, spec.num_rounds, spec.training.report_goal) == ("mnist_cnn_task", 512, 2)
        assert spec.learning.metrics == ("sparse_categorical_accuracy",)
        assert spec.eligibility.min_example_count == 1
        assert len(spec.notices) == 2  # The braces, and the name that says JSON.

    def test_the_fragment_about_privacy_has_a_delta_that_is_too_large(self, golden):
        problems = problems_of((golden / "guide" / "job_guide_dp.pbtxt").read_bytes())
        delta = next(p for p in problems if p.path.endswith("dp_delta"))
        assert delta.line == 8
        assert delta.suggestion == "Delta must not exceed 1 / population: set it to 3.3e-7, or leave the field out."

    @pytest.mark.parametrize("name", ["job_guide_label_name", "job_guide_metrics", "job_guide_dp"])
    def test_the_fragments_parse_and_lack_what_a_whole_config_needs(self, golden, name):
        loaded = config.load_config(golden / "guide" / f"{name}.pbtxt")
        assert loaded.problems == ()
        assert all("Invalid task config" in problem.message for problem in problems_of(loaded.text.text))


def _replace_last(text, old, new):
    start = text.rindex(old)
    return text[:start] + new + text[start + len(old) :]


def _values(spec):
    """A spec without what depends on how it was written."""
    return {name: value for name, value in vars(spec).items() if name not in ("origins", "notices")}
