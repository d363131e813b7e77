"""The files of an app: what they hold, what is kept, and names and URLs that do not do."""

import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.android import app, names
from odp_taskbuilder.artifacts.example_format import ExampleFeature, ExampleFormat

ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")
DIGITS = pathlib.Path(__file__).parents[2] / "configs" / "digits"
ANDROID = "{http://schemas.android.com/apk/res/android}"
TASK = ExampleFormat("a task", "digits", 341812000, (ExampleFeature("x", "float32", (64,)), ExampleFeature("y", "int64", (1,))))


def options(**changes):
    values = {
        "package": "com.example.digits",
        "service": "Digits",
        "federated_compute_url": "https://fed.example.com/a?b=1&c=2",
    }
    return app.AppOptions(**{**values, **changes})


def test_manifest_and_settings_name_service_and_servers():
    files = app.app_files([TASK], options(download_url="https://data.example.com/'x'?d", settings_name="OdpSettings"))
    manifest = xml.etree.ElementTree.fromstring(files["AndroidManifest.xml"])
    prop, service = manifest.find("application")
    assert prop.attrib == {
        f"{ANDROID}name": "android.ondevicepersonalization.ON_DEVICE_PERSONALIZATION_CONFIG",
        f"{ANDROID}resource": "@xml/OdpSettings",
    }
    assert service.attrib == {
        f"{ANDROID}name": "com.example.digits.Digits",
        f"{ANDROID}exported": "true",
        f"{ANDROID}isolatedProcess": "true",
    }
    settings = xml.etree.ElementTree.fromstring(files["res/xml/OdpSettings.xml"])
    assert settings.find("service").attrib == {"name": "com.example.digits.Digits"}
    assert [(child.tag, child.attrib) for child in settings.find("service")] == [
        ("download-settings", {"url": "https://data.example.com/'x'?d"}),
        ("federated-compute-settings", {"url": "https://fed.example.com/a?b=1&c=2"}),
    ]


def test_xmllint_accepts_the_xml(tmp_path):
    if shutil.which("xmllint") is None:
        pytest.skip("there is no xmllint")
    written = app.write_app([TASK], tmp_path, options(download_url="https://data.example.com/?a=<b>".replace("<b>", "%3Cb%3E")))
    for path in written.written:
        if path.suffix == ".xml":
            subprocess.run(["xmllint", "--noout", path], check=True)


def test_shellcheck_accepts_the_scripts(tmp_path):
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck")
    for path in app.write_app([TASK], tmp_path, options()).written:
        if path.suffix == ".sh":
            subprocess.run(["shellcheck", path], check=True)


_FAKE_ADB = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in *"pm list packages"*) printf '%s\\r\\n' "package:com.google.android.adbd versionCode:999999999" "$MODULE" ;; esac
"""


def device(tmp_path, module, script="device-setup.sh"):
    """Runs a script against an adb that knows one module: (finished process, what adb was asked)."""
    app.write_app([TASK], tmp_path / "app", options())
    adb = tmp_path / "adb"
    adb.write_text(_FAKE_ADB)
    adb.chmod(0o755)
    environment = {"ADB": str(adb), "LOG": str(tmp_path / "log"), "MODULE": module, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([tmp_path / "app" / script], env=environment, capture_output=True, text=True)
    return done, (tmp_path / "log").read_text().splitlines()


@pytest.mark.parametrize("version", [341717000, 341811999])
def test_a_phone_whose_module_is_too_old_is_told_and_not_touched(tmp_path, version):
    done, asked = device(tmp_path, f"package:com.google.android.ondevicepersonalization versionCode:{version}")
    assert done.returncode == 1
    assert f"has version {version}; the tasks need 341812000: they would never be offered to it." in done.stderr
    assert asked == ["shell pm list packages --apex-only --show-versioncode"]


def test_a_phone_without_the_module_is_told_and_not_touched(tmp_path):
    done, asked = device(tmp_path, "package:com.android.ondevicepersonalization2 versionCode:400000000")
    assert done.returncode == 1
    assert "has no module com.google.android.ondevicepersonalization" in done.stderr
    assert len(asked) == 1


def test_a_phone_is_readied_and_left_as_it_was(tmp_path):
    module = "package:com.google.android.ondevicepersonalization versionCode:341812000"
    done, asked = device(tmp_path, module)
    assert done.returncode == 0, done.stderr
    put = "shell device_config put on_device_personalization "
    assert asked[1:] == [
        "shell device_config set_sync_disabled_for_tests persistent",
        f"{put}global_kill_switch false",
        f"{put}federated_compute_kill_switch false",
        f"{put}enable_ondevicepersonalization_apis true",
        f"{put}enable_personalization_status_override true",
        f"{put}personalization_status_override_value true",
        f'{put}caller_app_allow_list "*"',
        f'{put}isolated_service_allow_list "*"',
    ]
    (tmp_path / "log").unlink()
    done, undone = device(tmp_path, module, "device-undo.sh")
    assert done.returncode == 0
    settings = [line.split()[4] for line in asked[2:]]
    assert undone == [f"shell device_config delete on_device_personalization {name}" for name in settings] + [
        "shell device_config set_sync_disabled_for_tests none"
    ]


def test_files_that_are_there_are_kept_and_the_developer_s_own_even_when_others_are_replaced(tmp_path):
    first = app.write_app([TASK], tmp_path, options())
    assert not first.kept
    for path in first.written:
        path.write_text("mine")
    again = app.write_app([TASK], tmp_path, options())
    assert (again.written, set(again.kept)) == ((), set(first.written))
    replaced = app.write_app([TASK], tmp_path, options(), overwrite=True)
    assert [path.name for path in replaced.kept] == ["DigitsData.java"]
    assert {path.name for path in first.written if path.read_text() == "mine"} == {"DigitsData.java"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"package": "digits"}, "Android takes packages of two parts"),
        ({"package": "com.example.new"}, "'new' is a keyword"),
        ({"package": "com.example.when"}, "'when' is a keyword"),
        ({"package": "com..example"}, "'' is not made of letters"),
        ({"package": "com.exämple"}, "'exämple' is not made of letters"),
        ({"package": "com.1example"}, "'1example' is not made of letters"),
        ({"package": "com.example\n"}, "is not made of letters"),
        ({"service": "class"}, "it is a keyword"),
        ({"service": "My Service"}, "not made of letters"),
        ({"service": "record"}, "it is a keyword"),
        ({"service": "画"}, "not made of letters"),
        ({"service": "IsolatedService"}, "a class that the service needs is called IsolatedService"),
        ({"service": "String"}, "a class that the service needs is called String"),
        ({"service": "FloatArray"}, "a class that the service needs is called FloatArray"),
        # Beside it stands its worker.
        ({"service": "Isolated"}, "a class that the service needs is called IsolatedWorker"),
        ({"settings_name": "odp-settings"}, "resources are named by letters"),
        ({"federated_compute_url": "http://fed.example.com"}, "does not begin with https://"),
        ({"federated_compute_url": "fed.example.com"}, "does not begin with https://"),
        ({"federated_compute_url": "https:///x"}, "names no host"),
        ({"federated_compute_url": "https://a:b@fed.example.com"}, "user name or password"),
        ({"federated_compute_url": "https://fed.example.com:port"}, "--federated_compute_url"),
        ({"federated_compute_url": "https://fed.example.com/a b"}, "stand in no URL"),
        ({"download_url": "https://fed.exämple.com"}, "stand in no URL"),
        ({"download_url": "ftp://fed.example.com"}, "does not begin with https://"),
    ],
)
def test_names_and_urls_that_do_not_do_are_refused_and_nothing_is_written(tmp_path, changes, message):
    with pytest.raises(errors.UsageError) as caught:
        app.write_app([TASK], tmp_path / "app", options(**changes))
    assert message in f"{caught.value.message} {caught.value.next_step}"
    assert not (tmp_path / "app").exists()


def test_tasks_of_one_or_no_population_are_refused():
    with pytest.raises(errors.UsageError, match="of one population, 'digits'"):
        app.app_files([TASK, TASK], options())
    with pytest.raises(errors.UsageError, match="does not say which population"):
        app.app_files([TASK.with_population(None)], options())


def test_names_become_parameters_and_the_developer_is_told(tmp_path):
    features = tuple(
        ExampleFeature(name, "int64", ()) for name in ("class", "a b", "a_b", "größe", "面積", "7up", "floats", "x")
    )
    task = ExampleFormat("a task", "p", None, features)
    assert list(names.parameter_names(feature.name for feature in features).values()) == [
        "class_",
        "a_b",
        "a_b_",
        "gr_e",
        "feature5",
        "feature_7up",
        "floats_",
        "x",
    ]
    notices = app.write_app([task], tmp_path, options()).notices
    assert sum("its own name is none in Java or Kotlin" in notice for notice in notices) == 7
    assert any("Before a build it is not known" in notice for notice in notices)


def test_an_example_that_may_be_too_large_is_told(tmp_path):
    task = ExampleFormat("a task", "p", 341812000, (ExampleFeature("x", "float32", (12_500,)),))
    (notice,) = app.write_app([task], tmp_path, options()).notices
    assert "may take 50,0" in notice and "phones take none above 50,000" in notice


def odp_task(*arguments):
    return subprocess.run([ODP_TASK, "android", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_the_command_works_before_a_build_and_twice(tmp_path):
    task = ("--saved_model", DIGITS / "saved_model", "--task_config", DIGITS / "train.pbtxt")
    names_ = ("--package", "com.example.digits", "--service", "Digits", "--federated_compute_url", "https://fed.example.com")
    made = odp_task(*task, "--output", tmp_path / "app", *names_)
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.splitlines()) == 9
    encoder = (tmp_path / "app/java/com/example/digits/DigitsExamples.java").read_text()
    assert 'DIGITS_POPULATION = "digits"' in encoder and "float[] x,\n            long y)" in encoder
    again = odp_task("app", *task, "--output", tmp_path / "app", *names_)
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr.count("which was there") == 9
    refused = odp_task(*task, "--output", tmp_path / "app", *names_[:-1], "http://fed.example.com")
    assert refused.returncode == 2
    assert odp_task("--output", tmp_path / "app", *names_).returncode == 2


def test_the_command_reads_artifacts(golden, tmp_path):
    artifacts = golden / "keras_dense" / "expected_mapreduce"
    names_ = ("--package", "a.b", "--service", "S", "--federated_compute_url", "https://x.org")
    assert "Add --population_name" in odp_task(artifacts, "--output", tmp_path / "app", *names_).stderr
    made = odp_task(artifacts, "--output", tmp_path / "app", *names_, "--population_name", "keras")
    assert made.returncode == 0, made.stderr
    assert "float[] x" in (tmp_path / "app/java/a/b/SExamples.java").read_text()
