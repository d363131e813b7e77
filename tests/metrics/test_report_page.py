"""`odp-task report` writes a page that says what runs were and came to, stands for itself, and shows names as what they are."""

import dataclasses
import functools
import html.parser
import http.server
import json
import re
import shutil
import subprocess
import threading

import pytest
from click.testing import CliRunner

from odp_taskbuilder import errors
from odp_taskbuilder.cli.main import cli
from odp_taskbuilder.config import paths
from odp_taskbuilder.config.show import ResolvedValue
from odp_taskbuilder.config.spec import Origin
from odp_taskbuilder.metrics.run import format_metrics
from odp_taskbuilder.metrics.run_facts import ClientPlan, Mechanism, RunFacts, SpentPrivacy, read_facts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# What a page cannot load and cannot run, whoever wrote a name in it.
_ACTIVE = {"script", "iframe", "object", "embed", "link", "base", "form", "img", "image", "audio", "video", "a", "foreignobject", "animate"}
_VOID = {"meta", "br", "hr"}

PLAIN = RunFacts(
    population="digits",
    options={"clients_per_round": 10, "sampling": "fixed", "seed": 0},
    clients=50,
    evaluation_clients=40,
    config=(
        ResolvedValue(f"{paths.LEARNING}.client_learning_rate", 0.1, Origin.CONFIG),
        ResolvedValue("use_daf", False, Origin.DEFAULT),
        ResolvedValue("label_name", None, Origin.DEFAULT),
    ),
    client_plans={"training": ClientPlan(12345, 70, {"FlexSum": 2, "Conv2DBackpropFilter": 1}, 341812000, "2.9.0")},
    mechanism=None,
    rounds=2,
)
PRIVATE = dataclasses.replace(
    PLAIN,
    config=(ResolvedValue(f"{paths.LEARNING}.client_learning_rate", 0.25, Origin.OPTION), *PLAIN.config[1:]),
    client_plans={"training": ClientPlan(999, 70, {}, 0, None), "evaluation": ClientPlan(5, 3, {"NoSuch": 1}, None, None)},
    mechanism=Mechanism("FIXED_GAUSSIAN", 0.75, 0.5),
    privacy=SpentPrivacy(
        4.5299999, "for an assumed population of 3,000,000 devices", 134.16, 50, 1 / 3e6, 2, ("Each round is assumed to draw.", "Second.")
    ),
)


def write_run(folder, facts=PLAIN, factor=1.0, population="digits"):
    for task, name in ((1, "server/client_work/train/loss"), (2, "server/eval/loss")):
        for number in (1, 2):
            path = folder / population / str(task) / str(number) / "s" / "0" / "metrics"
            path.parent.mkdir(parents=True)
            values = {
                name: factor / number / task,
                "server/finalizer/update_non_finite": 0.0,
                "simulation/bad_clients": 1.0,
                "communication/broadcast_bytes_per_client": 19790.0 * task,
                "communication/broadcast_wire_bytes_per_client": 12486.0,
                "communication/broadcast_bytes_cumulative": 197900.0 * number,
                "communication/aggregated_bytes_per_client": 3001.0,
                "communication/aggregated_bytes_cumulative": 30010.0 * number,
            }
            path.write_bytes(format_metrics(values))
    if facts is not None:
        (folder / "facts.json").write_bytes(facts.to_json())


class Page(html.parser.HTMLParser):
    """A page as a browser understands it.

    Attributes:
      tables: rows of cells, as text.
      text: what is shown, piece by piece.
    """

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.text, self.tables, self._open = set(), [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text.append(data)
            if set(self._open) & {"td", "th"}:
                self.tables[-1][-1][-1] += data

    def table(self, heading):
        """The table whose first heading that is."""
        (found,) = [table for table in self.tables if table[0][0] == heading]
        return {row[0]: row[1:] for row in found}

    @property
    def words(self):
        return re.sub(r"\s+", " ", "".join(self.text))


def report(folder, *arguments):
    done = CliRunner().invoke(cli, ["report", *map(str, arguments), "--output", str(folder / "page.html")])
    if done.exception:
        raise done.exception
    return Page(folder / "page.html")


@pytest.fixture
def page(tmp_path):
    write_run(tmp_path / "plain")
    write_run(tmp_path / "private", PRIVATE, 3.0)
    return report(tmp_path, f"without={tmp_path / 'plain'}", tmp_path / "private")


def test_a_page_says_what_runs_were_and_came_to(page):
    glance = page.table("\u200b")
    assert glance["\u200b"] == ["without", "private"]
    assert glance["Population"] == ["digits", "digits"]
    assert glance["Training rounds"] == glance["Evaluation rounds"] == ["2", "2"]
    assert glance["train/loss, last round"] == ["0.5", "1.5"]
    assert glance["eval/loss, last round"] == ["0.25", "0.75"]
    spent = "4.53 for an assumed population of 3,000,000 devices; 134.16 for a population of 50, the clients of this simulation"
    assert glance["Epsilon"] == ["none: no DP aggregator", spent]
    assert glance["Download per training client, bytes"] == ["19,790", "19,790"]
    assert glance["Clients that were skipped"] == ["4", "4"]
    assert "Clients that sent zeros" not in glance


def test_an_epsilon_stands_beside_its_populations_and_assumptions(page):
    assert "No DP aggregator: no guarantee." in page.words
    assert (
        "Epsilon 4.53 for an assumed population of 3,000,000 devices; 134.16 for a population of 50, the clients of this simulation."
        in page.words
    )
    for part in ("Each round is assumed to draw.", "Second.", "FIXED_GAUSSIAN", "noise multiplier0.75", "delta3.333333e-07"):
        assert part in page.words


def test_bytes_ops_and_rounds_are_those_of_the_files(page):
    moved = page.table("Run and task")
    assert moved["private, training"] == ["2", "19,790", "12,486", "395,800", "3,001", "–", "60,020"]
    assert moved["without, evaluation"] == ["2", "39,580", "12,486", "395,800", "3,001", "–", "60,020"]
    for part in ("12,345 bytes", "version 341812000 of the phones' module, or later", "Conv2DBackpropFilter × 1, FlexSum × 2", "2.9.0"):
        assert part in page.words
    assert "any version of the phones' module" in page.words
    assert "no listed version of the phones' module runs it" in page.words
    rounds = [table for table in page.tables if table[0] == ["round", "eval/loss", "finalizer/update_non_finite"]]
    assert [row[:2] for row in rounds[1]] == [["round", "eval/loss"], ["1", "1.5"], ["2", "0.75"]]


def test_settings_that_differ_stand_before_those_that_all_share(page):
    different, same = [table for table in page.tables if table[0][0] == "Setting"]
    assert different[1:] == [[f"{paths.LEARNING}.client_learning_rate", "0.1config", "0.25option"]]
    same = {row[0]: row[1:] for row in same}
    assert same["use_daf"] == ["falsedefault"] * 2
    assert same["label_name"] == ["not setdefault"] * 2
    assert same["simulate --clients_per_round"] == ["10option"] * 2
    assert same["clients"] == ["50data"] * 2


def test_each_plot_is_a_picture_in_the_page_with_text_that_can_be_read(page):
    assert [value for name, value in page.attributes if name == "aria-label"] == ["loss over rounds"]
    assert "Left out, as they are 0 in all rounds: finalizer/update_non_finite." in page.words
    # The horizontal axis.
    assert "loss 1 2 round" in page.words
    # One line for each task and its run's colour: two solid, two dashed.
    styles = [value for name, value in page.attributes if name == "style" and "stroke-width: 1.4" in value]
    assert len(styles) == 4 and sum("stroke-dasharray" in style for style in styles) == 2
    keys = [value for name, value in page.attributes if value and value.startswith("background:")]
    for style, colour in zip(styles, ("#1f77b4", "#1f77b4", "#ff7f0e", "#ff7f0e")):
        assert f"stroke: {colour}" in style and f"background:{colour}" in keys


def test_a_page_loads_nothing_and_runs_nothing(page, tmp_path):
    assert not page.tags & _ACTIVE
    for name, value in page.attributes:
        assert not name.startswith("on") and name != "src"
        assert name != "href" or value.startswith("#")
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    source = (tmp_path / "page.html").read_text()
    assert not re.search(r"url\((?!#)|@import|https?:", source)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 0


def test_the_same_runs_give_the_same_bytes(tmp_path):
    write_run(tmp_path / "run", PRIVATE)
    report(tmp_path, tmp_path / "run")
    once = (tmp_path / "page.html").read_bytes()
    report(tmp_path, tmp_path / "run")
    assert (tmp_path / "page.html").read_bytes() == once


_HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=y>&lt;{{ 7 * 7 }}$\\badmacro{$--></svg>"
_STEERING = "\x1b[2J\u202e\u2067\x9b\x00"


@pytest.mark.parametrize("place", ["label", "population", "metric", "facts"])
def test_names_from_anyone_are_text(place, tmp_path):
    name = _HOSTILE.replace("/", "∕")
    folder = tmp_path / "run"
    facts = PRIVATE
    if place == "facts":
        everywhere = _HOSTILE + _STEERING
        facts = RunFacts(
            population=everywhere,
            options={everywhere: everywhere},
            clients=1,
            evaluation_clients=1,
            config=(ResolvedValue(everywhere, everywhere, Origin.CONFIG),),
            client_plans={everywhere: ClientPlan(1, 1, {everywhere: 1}, None, everywhere)},
            mechanism=Mechanism(everywhere, 1.0, 1.0),
            rounds=2,
            privacy=SpentPrivacy(1.0, everywhere, None, None, 0.1, 2, (everywhere,)),
        )
    write_run(folder, facts, population=name + _STEERING.replace("\x00", "") if place == "population" else "digits")
    if place == "metric":
        (folder / "digits/1/2/s/0/metrics").write_text(json.dumps({f"server/client_work/train/{_HOSTILE}": 1.0}))
    label = (name + _STEERING.replace("\x00", "")).replace("=", "is")
    page = report(tmp_path, f"{label}={folder}" if place == "label" else folder)
    assert not page.tags & _ACTIVE
    assert not set("\x1b\u202e\u2067\x9b\x00") & set((tmp_path / "page.html").read_text())
    assert not any(attribute.startswith("on") for attribute, _ in page.attributes)
    shown = {"label": name.replace("=", "is"), "population": name}.get(place, _HOSTILE)
    assert shown in page.words
    if place != "metric":
        assert shown + r"\x1b[2J\u202e\u2067\x9b" in page.words


def test_what_cannot_be_written_or_read_is_told(tmp_path):
    write_run(tmp_path / "run")
    with pytest.raises(errors.UsageError, match="page.png is no name of a page"):
        report_to(tmp_path / "page.png", tmp_path / "none")
    with pytest.raises(errors.StorageError, match="none.*No such file"):
        report_to(tmp_path / "page.html", tmp_path / "none")
    with pytest.raises(errors.StorageError, match="Cannot write .*/none/page.html"):
        report_to(tmp_path / "none" / "page.html", tmp_path / "run")
    with pytest.raises(errors.UsageError, match="no metric 'los'. Did you mean 'loss'"):
        report_to(tmp_path / "page.html", tmp_path / "run", "--metric", "los")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def report_to(page, *arguments):
    done = CliRunner().invoke(cli, ["report", *map(str, arguments), "--output", str(page)])
    if done.exception:
        raise done.exception


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b"1" * 5000,
        b" " * (1 << 20) + b"1",
        PLAIN.to_json().replace(b'"clients": 50', b'"clients": "50"'),
        PLAIN.to_json().replace(b'"clients": 50', b'"clients": true'),
        PLAIN.to_json().replace(b'"default"', b'"elsewhere"'),
        PLAIN.to_json().replace(b'"value"', b'"worth"'),
        PRIVATE.to_json().replace(b'"epsilon": 4.5299999', b'"epsilon": {"a": 1}'),
    ],
)
def test_damaged_facts_are_refused(content, tmp_path):
    write_run(tmp_path / "run")
    (tmp_path / "run" / "facts.json").write_bytes(content)
    with pytest.raises(errors.ArtifactError, match="run/facts.json does not hold the facts of a run: "):
        report(tmp_path, tmp_path / "run")


@pytest.mark.parametrize("facts", [PLAIN, PRIVATE, dataclasses.replace(PRIVATE, rounds=None, privacy=None, noise_of_reports=7)])
def test_facts_are_read_as_they_were_written(facts, tmp_path):
    (tmp_path / "facts.json").write_bytes(facts.to_json())
    assert read_facts(str(tmp_path)) == facts


def test_runs_that_do_not_tell_or_have_not_ended_claim_nothing(tmp_path):
    write_run(tmp_path / "old", None)
    write_run(tmp_path / "going on", dataclasses.replace(PRIVATE, rounds=None, privacy=None))
    write_run(tmp_path / "deployed", dataclasses.replace(PRIVATE, privacy=None, noise_of_reports=1000))
    page = report(tmp_path, *(tmp_path / name for name in ("old", "going on", "deployed")))
    assert page.table("\u200b")["Epsilon"] == ["–", "not known: the run has not ended", "none claimed"]
    for part in ("old does not say how it was made", "The run has not ended", "weighed as if 1,000 clients, the report goal, had reported"):
        assert part in page.words


def test_a_long_run_shows_rounds_at_equal_distances_and_the_last(tmp_path):
    for number in range(1, 1001):
        path = tmp_path / "run" / "digits" / "1" / str(number) / "s" / "0"
        path.mkdir(parents=True)
        (path / "metrics").write_bytes(format_metrics({"loss": 1.0 + number}))
    page = report(tmp_path, tmp_path / "run")
    rows = page.tables[-1][1:]
    assert (len(rows), rows[0], rows[1], rows[-1]) == (100, ["10", "11"], ["20", "21"], ["1000", "1,001"])
    assert "every 10th of 1,000 rounds" in page.words


_MEASURE = """<!DOCTYPE html><body><script>
async function measure(width) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px"; frame.style.border = "0"; frame.src = "page.html";
  document.body.append(frame);
  await new Promise(done => frame.onload = done);
  const page = frame.contentDocument;
  for (const details of page.querySelectorAll("details")) details.open = true;
  const root = page.documentElement, beyond = [];
  for (const element of page.body.querySelectorAll("*"))
    if (!element.closest(".scroll") && !element.closest("svg") && element.getBoundingClientRect().right > width + 0.5) beyond.push(element.tagName);
  const heights = [...page.querySelectorAll("svg text")].map(text => text.getBoundingClientRect().height);
  return {width, viewport: root.clientWidth, content: root.scrollWidth, beyond, smallest: Math.min(...heights)};
}
Promise.all([measure(360), measure(1200)]).then(found => { document.title = JSON.stringify(found); });
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_shows_the_page_on_a_phone_and_on_a_desk_without_scrolling_sideways(tmp_path):
    long = dataclasses.replace(PRIVATE, population="p" * 300, config=(ResolvedValue("path" * 40, "value" * 60, Origin.CONFIG),))
    write_run(tmp_path / ("one" + "x" * 150), long)
    write_run(tmp_path / "two", PLAIN)
    report(tmp_path, *(f"run{number}={tmp_path / 'two'}/{'.' if number else ''}" for number in range(2)), *tmp_path.glob("onex*"))
    (tmp_path / "measure.html").write_text(_MEASURE)
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
            *("--disable-sync", "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--virtual-time-budget=20000", "--dump-dom", f"http://127.0.0.1:{server.server_port}/measure.html"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        server.shutdown()
    title = re.search(r"<title>(.*)</title>", done.stdout)
    assert title, done.stderr
    for found in json.loads(html.unescape(title[1])):
        assert found["viewport"] == found["width"]
        assert found["content"] <= found["width"], found
        assert found["beyond"] == [], found
        # CSS pixels that the text of a plot is high.
        assert found["smallest"] >= 10, found


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass
