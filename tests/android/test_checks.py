"""Whatever phones skip or drop without a word is found, with its line and the fix."""

import re

import pytest

from odp_taskbuilder.android import app
from odp_taskbuilder.android.checks import check_files
from odp_taskbuilder.artifacts.example_format import ExampleFeature, ExampleFormat

TASK = ExampleFormat("a task", "digits", 341812000, (ExampleFeature("x", "float32", ()),))
FILES = app.app_files(
    [TASK],
    app.AppOptions(
        package="com.example.app",
        service="Feeding",
        federated_compute_url="https://fed.example.com",
        download_url="https://data.example.com",
    ),
)
MANIFEST = FILES["AndroidManifest.xml"]
SETTINGS = FILES["res/xml/odp_settings.xml"]
DOWNLOAD = """{
 "syncToken": 1699999200,
 "contents": [
  {"key": "a", "data": "ü"},
  {"key": "b", "data": "AAE=", "encoding": "base64"},
  {"key": "c", "data": "", "encoding": "utf8"}
 ]
}
"""


def check(tmp_path, last_sync_token=None, **files):
    names = {"manifest": "AndroidManifest.xml", "settings": "odp_settings.xml", "download": "download.json"}
    paths = []
    for name, content in files.items():
        paths.append(tmp_path / names[name])
        paths[-1].write_bytes(content if isinstance(content, bytes) else content.encode())
    return check_files(paths, last_sync_token=last_sync_token)


def line_of(text, part):
    return text[: text.index(part)].count("\n") + 1


def test_what_is_generated_is_sound(tmp_path):
    assert check(tmp_path, manifest=MANIFEST, settings=SETTINGS, download=DOWNLOAD, last_sync_token=1699995600) == []


def misspellings(name):
    """A letter less, two letters swapped, another case, another sign between words."""
    yield name[:-1]
    yield name[:1] + name[2:]
    yield name[1] + name[0] + name[2:]
    yield name.upper() if name != name.upper() else name.lower()
    if "-" in name:
        yield name.replace("-", "_")
        yield name.replace("-", "")
    yield name + "s"


SETTINGS_NAMES = ["on-device-personalization", "service", "download-settings", "federated-compute-settings", "name", "url"]


@pytest.mark.parametrize(
    ("name", "wrong"), [(name, wrong) for name in SETTINGS_NAMES for wrong in misspellings(name)], ids=lambda value: value
)
def test_every_misspelling_in_settings_is_found_with_its_line(tmp_path, name, wrong):
    pattern = re.compile(rf"(?<=[</ ]){re.escape(name)}(?=[ =>])")
    lines = {number for number, line in enumerate(SETTINGS.splitlines(), 1) if pattern.search(line)}
    assert lines
    problems = check(tmp_path, settings=pattern.sub(wrong, SETTINGS))
    # Of a tag the line where it begins; what is closed is closed by the same name.
    found = {problem.line for problem in problems if repr(wrong) in problem.message}
    begun = {number for number in lines if not SETTINGS.splitlines()[number - 1].strip().startswith("</")}
    assert found == begun
    assert all(name in problem.fix for problem in problems if repr(wrong) in problem.message)


MANIFEST_NAMES = [
    "application",
    "property",
    "service",
    "android:name",
    "android:resource",
    "android:exported",
    "android:isolatedProcess",
]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        (name, prefix + wrong)
        for name in MANIFEST_NAMES
        for prefix in [name.rpartition(":")[0] + ":" if ":" in name else ""]
        for wrong in misspellings(name.rpartition(":")[2])
    ]
    + [("android:isolatedProcess", "isolatedProcess"), ("android:name", "name")],
    ids=lambda value: value,
)
def test_every_misspelling_in_a_manifest_is_found_with_its_line(tmp_path, name, wrong):
    pattern = re.compile(rf"(?<=[</ ]){re.escape(name)}(?=[ =>])")
    changed = pattern.sub(wrong, MANIFEST)
    assert changed != MANIFEST
    # The words of the comment above are not about tags.
    lines = {
        number
        for number, line in enumerate(changed.splitlines(), 1)
        if wrong in line and not line.strip().startswith(("</", "<!--"))
    }
    problems = check(tmp_path, manifest=changed)
    assert {problem.line for problem in problems if repr(wrong) in problem.message} == lines


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('url="https://fed', 'url="http://fed', "does not begin with https://"),
        ('url="https://fed.example.com"', 'url=""', "federated-compute-settings has no url"),
        ('    <federated-compute-settings url="https://fed.example.com" />\n', "", "it never trains"),
        ("com.example.app.Feeding", "Feeding", "no class with its package"),
        ("com.example.app.Feeding", "com.example.app.", "no class with its package"),
        ("com.example.app.Feeding", "com.example.app.画", "no class with its package"),
        ("com.example.app.Feeding", "com.example.new.Feeding", "'new' is a keyword"),
        ("  </service>", "  </service>  <service/>", "service has no name"),
        ("  </service>", "text</service>", "service holds text"),
        ("    <federated", "    <download-settings url='https://a.b'/>\n    <federated", "download-settings stood before"),
        ("<on-device-personalization>", "<on-device-personalization x='1'>", "on-device-personalization has no attribute 'x'"),
        ("</service>", "</servce>", "not XML: mismatched tag"),
        (
            "<on-device-personalization>",
            "<!DOCTYPE x [<!ENTITY a 'b'>]>\n<on-device-personalization>",
            "a document type is declared",
        ),
        ("<on-device-personalization>", "<resources>", "not XML: mismatched tag"),
    ],
)
def test_what_is_wrong_in_settings_is_found(tmp_path, old, new, message):
    assert old in SETTINGS
    changed = SETTINGS.replace(old, new, 1)
    problems = check(tmp_path, settings=changed)
    assert any(message in problem.message for problem in problems), problems


@pytest.mark.parametrize(
    ("old", "new", "message", "part"),
    [
        (
            "android.ondevicepersonalization.ON_DEVICE",
            "android.ondevicepersonalisation.ON_DEVICE",
            "is unknown to the phone",
            "<property",
        ),
        ("@xml/odp_settings", "@xml/odp_settings.xml", "is no XML resource", "<property"),
        ("@xml/odp_settings", "@xml/OdpSettings", "does not name", "<property"),
        (' android:isolatedProcess="true"', "", "no service has android:isolatedProcess", "<service"),
        (' android:exported="true"', "", "is not exported", "<service"),
        ('android:exported="true"', 'android:exported="false"', "is not exported", "<service"),
        ("com.example.app.Feeding", "com.example.app.Feedings", "declares no service 'com.example.app.Feeding'", None),
        ("apk/res/android", "apk/res-auto", "the prefix android is not that of Android", "<manifest"),
        ("  <application>", "  <application></application>", "not XML", None),
    ],
)
def test_what_is_wrong_in_a_manifest_or_does_not_fit_the_settings_is_found(tmp_path, old, new, message, part):
    changed = MANIFEST.replace(old, new, 1)
    assert changed != MANIFEST
    found = [problem for problem in check(tmp_path, manifest=changed, settings=SETTINGS) if message in problem.message]
    assert found
    if part is not None:
        assert found[0].line == line_of(changed, part)


def test_a_place_is_that_of_the_attribute(tmp_path):
    (problem,) = check(tmp_path, settings=SETTINGS.replace("https://fed", "http://fed"))
    line = SETTINGS.splitlines()[problem.line - 1]
    assert line[problem.column - 1 :].startswith('url="https://fed')
    assert str(problem).startswith(f"{tmp_path / 'odp_settings.xml'}:5:")


def test_the_manifest_of_a_whole_app_is_no_problem(tmp_path):
    manifest = MANIFEST.replace(
        "  <application>",
        """  <uses-permission android:name="android.permission.INTERNET" />
  <application android:label="App" android:icon="@mipmap/icon">
    <activity android:name=".Main" android:exported="true">
      <intent-filter><action android:name="android.intent.action.MAIN" /></intent-filter>
    </activity>
    <service android:name=".Sync" android:foregroundServiceType="dataSync" />
    <property android:name="some.other.PROPERTY" android:value="x" />""",
    )
    assert check(tmp_path, manifest=manifest, settings=SETTINGS) == []
    relative = manifest.replace('"com.example.app.Feeding"', '".Feeding"')
    assert check(tmp_path, manifest=relative, settings=SETTINGS) == []


@pytest.mark.parametrize(
    ("old", "new", "message", "fix"),
    [
        ("1699999200", "1699999201", "is not on the hour", "Take 1699999200 or 1700002800."),
        ("1699999200", "1699999200000", "not in seconds", "Then 1699999200."),
        ("1699999200", "0", "not greater than 0", ""),
        ("1699999200", "-3600", "not greater than 0", ""),
        ("1699999200", '"1699999200"', "syncToken is no integer", "without quotes"),
        ("1699999200", "1699999200.0", "syncToken is no integer", ""),
        ("1699999200", "true", "syncToken is no integer", ""),
        ("syncToken", "synctoken", "no 'synctoken'", "Did you mean 'syncToken'?"),
        ("syncToken", "synctoken", "there is no syncToken", ""),
        ("contents", "content", "no 'content'", "Did you mean 'contents'?"),
        ("contents", "content", "there are no contents", ""),
        ('"utf8"', '"utf-8"', "the encoding 'utf-8' is unknown", 'Write "utf8".'),
        ('"base64"', '"BASE64"', "the encoding 'BASE64' is unknown", 'Write "base64".'),
        ('"base64"', "64", "the encoding 64 is unknown", ""),
        ("AAE=", "AAE", "data is no base64", ""),
        ('"key": "b"', '"key": "a"', "the key 'a' stood before", ""),
        ('"key": "b"', '"key": ""', "the key is empty", ""),
        ('"key": "b"', '"key": 1', "key is no string", ""),
        ('"key": "b", ', "", "the entry has no key", ""),
        ('"data": "ü"', '"date": "ü"', "the entry has no data", ""),
        ('"data": "ü"', '"date": "ü"', "no 'date'", "Did you mean 'data'?"),
        ('"data": "ü"', '"data": {}', "data is no string", ""),
        ('"ü"', '"\\ud83d"', "data holds half of a character", "base64"),
        ('"key": "a"', '"key": "\\udc00"', "key holds half of a character", ""),
        ('{"key": "a", "data": "ü"}', '"a"', "an entry is an object", ""),
        ('"data": "ü"', '"data": "x", "data": "y"', "'data' stands twice", ""),
        ('"syncToken"', '"syncToken": 3600, "syncToken"', "'syncToken' stands twice", ""),
        ('"ü"},', '"ü"}', "not JSON", ""),
        ('"ü"', "NaN", "NaN is no value of JSON", ""),
    ],
)
def test_every_rule_of_downloads_has_an_example_that_breaks_it(tmp_path, old, new, message, fix):
    changed = DOWNLOAD.replace(old, new, 1)
    assert changed != DOWNLOAD
    found = [problem for problem in check(tmp_path, download=changed) if message in problem.message]
    assert found and fix in found[0].fix
    if "JSON" not in message and "no syncToken" not in message and "no contents" not in message:
        assert found[0].line == line_of(DOWNLOAD, old)


def test_a_token_that_does_not_grow_is_found(tmp_path):
    for last, count in ((1699995600, 0), (1699999200, 1), (1700002800, 1)):
        problems = check(tmp_path, download=DOWNLOAD, last_sync_token=last)
        assert len(problems) == count
        assert all("is not greater than the last one" in problem.message for problem in problems)


@pytest.mark.parametrize("contents", ["[]", "{}", '"a"'])
def test_contents_that_are_none_are_found(tmp_path, contents):
    (problem,) = check(tmp_path, download=f'{{"syncToken": 3600, "contents": {contents}}}')
    assert "contents is" in problem.message


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000, b"\xff", "3", '{"a": ' * 5000])
def test_what_is_no_download_at_all_is_found(tmp_path, content):
    assert len(check(tmp_path, download=content)) >= 1


@pytest.mark.parametrize("content", ["", "<", "<a" + ">" * 3, "<a>" * 300, "text", b"\x00\x01"])
def test_what_is_no_xml_at_all_is_found(tmp_path, content):
    assert len(check(tmp_path, settings=content)) >= 1
