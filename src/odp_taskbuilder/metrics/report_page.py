"""A page that compares runs: one HTML file that stands for itself, with neither script nor anything to load.

The page is laid out by report.html, a Jinja template in which everything is escaped that is put in: as HTML, and what hides or steers
text besides (base/plain_text.py).
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import xml.etree.ElementTree
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base import package_data, plain_text
from odp_taskbuilder.metrics.plot import colour_of, svg_panels
from odp_taskbuilder.metrics.run import COMMUNICATION_PREFIX, PROGRESS_PREFIX, Run, short_name
from odp_taskbuilder.metrics.run_facts import RunFacts, SpentPrivacy
from odp_taskbuilder.privacy.rounding import rounded_up

_SUFFIXES = (".html", ".htm")
# Of a table that somebody scrolls through.
_MAX_ROWS = 100
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_ABSENT = "–"


@dataclasses.dataclass(frozen=True)
class Subject:
    """What the page compares: the tasks of one run directory or bucket.

    Attributes:
      name: tells it from the others; the group of its runs.
      source: where it was read.
      runs: its tasks.
      facts: None where the place does not tell them.
    """

    name: str
    source: str
    runs: tuple[Run, ...]
    facts: Optional[RunFacts]


def subjects(runs: Sequence[Run], sources: Mapping[str, str], facts: Mapping[str, Optional[RunFacts]]) -> list[Subject]:
    """Runs by the place that they were read from.

    Args:
      sources: group of runs -> that place (reading.groups).
      facts: group of runs -> the facts there.
    """
    return [Subject(name, source, tuple(run for run in runs if run.group == name), facts[name]) for name, source in sources.items()]


def write_page(compared: Sequence[Subject], runs: Sequence[Run], path: pathlib.Path) -> list[str]:
    """Writes the page, whole or not at all.

    Args:
      compared: with all their metrics.
      runs: the same runs with the metrics that are plotted and tabulated.

    Returns:
      The metrics that have no plot, because they are 0 in all rounds.

    Raises:
      UsageError: the name of the file is none of a page, or there is nothing to plot, or too much.
      StorageError: the file cannot be written.
    """
    require_page_name(path)
    panels, zero = svg_panels(runs)
    # Imported here: it takes a tenth of a second.
    import jinja2
    import markupsafe

    def shown(value: Any) -> Any:
        return value if isinstance(value, markupsafe.Markup) else plain_text.escaped(str(value))

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=shown, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(package_data.read_text(__package__, "report.html"))
    plots = [(title, markupsafe.Markup(_inline(svg, number))) for number, (title, svg) in enumerate(panels.items())]
    page = template.render(
        subjects=compared,
        colours=[markupsafe.Markup(colour_of(number)) for number in range(len(compared))],
        glance=list(_glance(compared)),
        plots=plots,
        zero=list(map(short_name, zero)),
        privacy=[_privacy(subject.facts) for subject in compared],
        communication=list(_communication(compared)),
        plans=[(subject, dict(_plans(subject.facts))) for subject in compared],
        config=_config(compared),
        rounds=[_rounds(run) for run in runs if run.metric_names()],
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise errors.StorageError(f"Cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return zero


def require_page_name(path: pathlib.Path) -> None:
    """Raises UsageError unless the suffix is that of a page."""
    if path.suffix.lower() not in _SUFFIXES:
        raise errors.UsageError(f"{path} is no name of a page.", next_step="Name one that ends in .html.")


def _inline(svg: str, number: int) -> str:
    """A document of SVG as an element inside a page: as large as its place, and with names that no other one has."""
    root = xml.etree.ElementTree.fromstring(svg)
    del root.attrib["width"], root.attrib["height"]
    for parent in list(root.iter()):
        for child in list(parent):
            # Styles in it would hold for the whole page.
            if child.tag.startswith(f"{_SVG}style") or child.tag == f"{_SVG}metadata":
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        if "id" in element.attrib:
            element.set("id", f"p{number}-{element.attrib['id']}")
        if _LINK in element.attrib:
            element.set("href", f"#p{number}-{element.attrib.pop(_LINK)[1:]}")
        for name, value in element.attrib.items():
            element.set(name, value.replace("url(#", f"url(#p{number}-"))
    root.set("aria-hidden", "true")
    return xml.etree.ElementTree.tostring(root, encoding="unicode")


def _number(value: Optional[float]) -> str:
    """A number as people read it."""
    if value is None:
        return _ABSENT
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.6g}"


def _is_evaluation(run: Run) -> bool:
    return any(short_name(name).startswith("eval/") for name in run.metric_names())


def _latest(subject: Subject, kind: str) -> tuple[int, Mapping[str, float]]:
    """Number and metrics of the last round of the training or the evaluation; (0, {}) if there is none."""
    rounds = [run.rounds for run in subject.runs if run.rounds and _is_evaluation(run) == (kind == "evaluation")]
    return max(rounds[-1].items()) if rounds else (0, {})


def _glance(compared: Sequence[Subject]) -> Iterator[tuple[str, list[str]]]:
    """The rows of the first table: what it is, and its value for each subject."""
    yield "Population", [", ".join({subject.facts.population: 0} if subject.facts else [_ABSENT]) for subject in compared]
    for kind in ("training", "evaluation"):
        yield f"{kind.capitalize()} rounds", [_number(_latest(subject, kind)[0]) for subject in compared]
    names = dict.fromkeys(
        name for subject in compared for run in subject.runs for name in run.published().metric_names() if short_name(name).count("/")
    )
    for name in names:
        if short_name(name).startswith(("train/", "eval/")):
            yield f"{short_name(name)}, last round", [_number(_last_value(subject, name)) for subject in compared]
    yield "Epsilon", [_epsilon(subject.facts) for subject in compared]
    for direction, word in (("broadcast", "Download"), ("aggregated", "Upload")):
        name = f"{COMMUNICATION_PREFIX}{direction}_bytes_per_client"
        yield f"{word} per training client, bytes", [_number(_latest(subject, "training")[1].get(name)) for subject in compared]
    for name, word in (("bad_clients", "Clients that were skipped"), ("zeroed_clients", "Clients that sent zeros")):
        counts = [_sum(subject, f"{PROGRESS_PREFIX}{name}") for subject in compared]
        if any(counts):
            yield word, [_number(count) for count in counts]


def _last_value(subject: Subject, name: str) -> Optional[float]:
    values = [values[name] for run in subject.runs for values in run.rounds.values() if name in values]
    return values[-1] if values else None


def _sum(subject: Subject, name: str) -> float:
    return sum(values.get(name, 0) for run in subject.runs for values in run.rounds.values())


def _epsilon(facts: Optional[RunFacts]) -> str:
    if facts is None:
        return _ABSENT
    if facts.privacy is not None:
        return _spent(facts.privacy)
    if facts.mechanism is None:
        return "none: no DP aggregator"
    return "none claimed" if facts.rounds is not None else "not known: the run has not ended"


def _spent(privacy: SpentPrivacy) -> str:
    """Each epsilon with its population."""
    told = f"{rounded_up(privacy.epsilon):.7g} {privacy.meant_for}"
    if privacy.simulated_epsilon is None:
        return told
    clients = f"a population of {privacy.simulated_clients or 0:,}, the clients of this simulation"
    return f"{told}; {rounded_up(privacy.simulated_epsilon):.7g} for {clients}"


def _privacy(facts: Optional[RunFacts]) -> dict[str, Any]:
    """What the section on privacy says of a run: `verdict`, `values` by name, `assumptions`."""
    if facts is None:
        return {"verdict": "Not known here.", "values": {}, "assumptions": ()}
    values = {}
    if facts.mechanism is not None:
        values = {
            "DP aggregator": facts.mechanism.aggregator,
            "noise multiplier": f"{facts.mechanism.noise_multiplier:.7g}",
            "clip norm": f"{facts.mechanism.clip_norm:.7g}",
        }
    spent = facts.privacy
    if spent is not None:
        values = {"delta": f"{spent.delta:.7g}", "training rounds": f"{spent.rounds:,}", **values}
        return {"verdict": f"Epsilon {_spent(spent)}.", "values": values, "assumptions": spent.assumptions}
    if facts.mechanism is None:
        verdict = "No DP aggregator: no guarantee. Models and metrics may reveal any single client's data."
    elif facts.rounds is None:
        verdict = "The run has not ended: what its rounds have spent is told at its end."
    elif facts.noise_of_reports is not None:
        verdict = (
            f"None claimed. Rounds were weighed as if {facts.noise_of_reports:,} clients, the report goal, had reported: the noise is what "
            "phones will see, the privacy of these clients is not."
        )
    else:
        verdict = "None claimed: the noise of these rounds can be repeated."
    return {"verdict": verdict, "values": values, "assumptions": ()}


def _communication(compared: Sequence[Subject]) -> Iterator[dict[str, Any]]:
    """A row for each task that says what it moved."""
    for subject in compared:
        for kind in ("training", "evaluation"):
            number, last = _latest(subject, kind)

            def told(name: str, values: Mapping[str, float] = last) -> str:
                return _number(values.get(f"{COMMUNICATION_PREFIX}{name}"))

            if f"{COMMUNICATION_PREFIX}broadcast_bytes_per_client" in last:
                yield {
                    "run": subject.name,
                    "task": kind,
                    "rounds": f"{number:,}",
                    "cells": [
                        told(f"{direction}_{name}")
                        for direction in ("broadcast", "aggregated")
                        for name in ("bytes_per_client", "wire_bytes_per_client", "bytes_cumulative")
                    ],
                }


def _plans(facts: Optional[RunFacts]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind of task -> what its client plan needs."""
    for kind, plan in (facts.client_plans if facts else {}).items():
        version = plan.min_module_version
        needs = "no listed version of the phones' module runs it" if version is None else f"version {version} of the phones' module, or later"
        yield (
            kind,
            {
                "size": f"{plan.size:,}",
                "builtin": f"{plan.builtin_ops:,}",
                "other": f"{sum(plan.other_ops.values()):,}",
                "names": ", ".join(f"{op} × {count:,}" for op, count in sorted(plan.other_ops.items())),
                "needs": "any version of the phones' module" if version == 0 else needs,
                "runtime": plan.min_runtime or _ABSENT,
            },
        )


def _config(compared: Sequence[Subject]) -> dict[str, list[tuple[str, list[tuple[str, str]]]]]:
    """Rows of settings, `different` and `same`: path -> (value, where it came from) of each subject."""
    values: list[dict[str, tuple[str, str]]] = []
    for subject in compared:
        facts = subject.facts
        settings = {f"simulate --{name}": (_setting(value), "option") for name, value in (facts.options if facts else {}).items()}
        counts = {"clients": facts.clients, "evaluation clients": facts.evaluation_clients} if facts else {}
        values.append(
            {
                **{value.path: (_setting(value.value), value.origin.value) for value in (facts.config if facts else ())},
                **settings,
                **{name: (f"{count:,}", "data") for name, count in counts.items()},
            }
        )
    rows: dict[str, list[tuple[str, list[tuple[str, str]]]]] = {"different": [], "same": []}
    for path in dict.fromkeys(path for known in values for path in known):
        cells = [known.get(path, (_ABSENT, "")) for known in values]
        rows["same" if len({value for value, _ in cells}) == 1 else "different"].append((path, cells))
    return rows


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "not set" if value is None or value == "" else f"{value:.7g}" if isinstance(value, float) else str(value)


def _rounds(run: Run) -> dict[str, Any]:
    """A run's table of rounds; of a long run rounds at equal distances, and the last one."""
    names = run.metric_names()
    step = math.ceil(len(run.rounds) / _MAX_ROWS)
    numbers = list(run.rounds)
    kept = [number for place, number in enumerate(numbers) if (len(numbers) - 1 - place) % step == 0]
    return {
        "name": run.name,
        "metrics": list(map(short_name, names)),
        "rows": [(number, [_number(run.rounds[number].get(name)) for name in names]) for number in kept],
        "note": f"every {step}th of {len(numbers):,} rounds" if step > 1 else f"{len(numbers):,} rounds",
    }
