"""The page: one HTML file that holds everything it shows and asks nothing of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from ...runtime.support.atomic_files import atomic_write_text
from .charts import number
from .figures import learning, losses, pace
from .film import film, tracks
from .records import Run, read_runs, summary

PAGE = "report.html"
"""Its name in a run's folder."""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_report(folders: Sequence[Path], output: Path) -> list[Run]:
    """Write the page of one run or of several.

    Raises:
        InputError: a folder holds no run. OutputError: the page cannot be written.
    """
    runs = read_runs(folders)
    atomic_write_text(output, html(runs))
    return runs


def html(runs: Sequence[Run]) -> str:
    """The page of runs."""
    files = resources.files(__package__)
    style, script = ((files / f"report.{end}").read_text("utf-8") for end in ("css", "js"))
    title = " | ".join(run.label for run in runs)
    body = [*_header(runs), _warnings(runs), _charts("Prediction and motion", learning(runs))]
    for heading, drawn, note in (("Pictures", film, _PICTURES), ("Tracks", tracks, _TRACKS)):
        found = [(run, drawn(run)) for run in runs]
        if any(part for _, part in found):
            body.append(f"<h2>{heading}</h2><p>{note}</p>")
        for run, part in found:
            name = f"<h3>{escape(run.label)}</h3>" if len(runs) > 1 and part else ""
            body.append(name + part)
    body += [_charts("Losses, as weighted", losses(runs)), _charts("Pace", pace(runs))]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: training</title><style>{style}</style></head><body><main>"
        f"{''.join(body)}</main><script>{script}</script></body></html>\n"
    )


_PICTURES = (
    "The same pairs at every look, by the averaged weights (EMA). docs/report.md says what the "
    "columns mean. Arrow keys move the slider."
)
_TRACKS = (
    "Where each point lies in the first pairs, from the first look to the last (the dot). "
    "A point that has found its place no longer wanders."
)


def _charts(heading: str, charts: Sequence[str]) -> str:
    return f'<h2>{heading}</h2><div class="charts">{"".join(charts)}</div>' if charts else ""


def _header(runs: Sequence[Run]) -> Iterator[str]:
    if len(runs) > 1:
        yield "<header><h1>Training runs</h1></header>"
        yield _comparison(runs)
        return
    (run,) = runs
    state, percent = _state(run)
    preset, size = run.setting("preset") or "a run", run.setting("model.image_size")
    name = f"{preset}, {size} pixels" if size else str(preset)
    yield (
        f'<header><h1>{escape(name)}</h1><span class="state">{state}</span>'
        f'<progress max="100" value="{percent:.1f}"></progress></header>'
    )
    tiles = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(what)}</span></div>" for what, value in _now(run)
    )
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in _facts(run).items())
    yield f'<section class="tiles">{tiles}</section><dl>{rows}</dl>'


def _comparison(runs: Sequence[Run]) -> str:
    """A column for each run: figures of now, and settings in which the runs differ."""
    own = [run.settings() for run in runs]
    names = dict.fromkeys(name for run in runs for name in ("preset", *run.changed()))
    rows = {"step": [_state(run)[0] for run in runs]}
    figures = [dict(_now(run)) for run in runs]
    for what in dict.fromkeys(what for each in figures for what in each):
        rows[what] = [each.get(what, "") for each in figures]
    for name in names:
        values = [_value(each.get(name, "")) for each in own]
        if len(set(values)) > 1:
            rows[name] = values
    heads = (
        f'<th><i style="--c:var(--c{i % 6})"></i>{escape(run.label)}</th>'
        for i, run in enumerate(runs)
    )
    lines = [f"<tr><th></th>{''.join(heads)}</tr>"]
    for what, cells in rows.items():
        drawn = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr><th>{escape(what)}</th>{drawn}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _state(run: Run) -> tuple[str, float]:
    most = run.setting("train.max_steps")
    if not most:
        return f"step {run.step}", 100.0
    said = f"done: {run.step} steps" if run.step >= most else f"step {run.step} of {most}"
    return said, 100 * run.step / most


def _now(run: Run) -> Iterator[tuple[str, str]]:
    """Figures that one looks at first, by what they are."""
    found = summary(run)
    probe = found["probe"] or {}
    if found["l1_ratio"] is not None:
        yield "l1 as a share of hold, latest mean", f"{found['l1_ratio']:.2f}"
    for what, value in (
        ("l1, latest mean", found["l1"]),
        ("mean displacement, pixels of 256", probe.get("displacement_mean")),
        ("seconds per step", found["seconds_per_step"]),
    ):
        if value is not None:
            yield what, number(value)
    if found["waiting"] is not None:
        yield "waiting for data", f"{100 * found['waiting']:.0f} %"
    yield "training time", duration(found["seconds"])
    yield "warnings", str(len(run.warnings))


def _facts(run: Run) -> dict[str, str]:
    facts = run.facts
    found = {"run": str(run.folder)}
    if not facts:
        found["settings"] = "not recorded: an older sonomime began this run"
        return found
    if data := facts.get("data"):
        found["data"] = "; ".join(
            f"{each['name']} ({each['clips']} clips, {each['subjects']} subjects)" for each in data
        )
    if labels := facts.get("labels"):
        found["labels"] = ", ".join(labels)
    widths = ", ".join(f"{k.removeprefix('model.')} {v}" for k, v in run.widths().items())
    found["networks"] = f"{number(facts.get('weights') or 0)} weights; {widths}"
    keys = {"batch size": "batch_size", "learning rate": "learning_rate", "seed": "seed"}
    found |= {name: _value(run.setting(f"train.{key}")) for name, key in keys.items()}
    said = {"model.image_size", "train.max_steps", *(f"train.{key}" for key in keys.values())}
    said |= {*run.widths()}
    minor = (".max_features", "_every")  # follows from the widths; changes no result
    changed = run.changed().items()
    pairs = [f"{k}={_value(v)}" for k, v in changed if k not in said and not k.endswith(minor)]
    if pairs:
        found["unlike the preset"] = ", ".join(pairs)
    found["device"] = str(facts.get("device"))
    begun = [_time(each) for each in facts.get("starts") or ()]
    if begun:
        found["begun"] = ", resumed at ".join(begun)
    found["sonomime"] = str(facts.get("sonomime"))
    return found


def _warnings(runs: Sequence[Run]) -> str:
    found = []
    for run in runs:
        for each in run.warnings:
            where = f"{escape(run.label)}, " if len(runs) > 1 else ""
            what, advice = (escape(str(each.get(key, ""))) for key in ("what", "advice"))
            found.append(f"<li><b>{where}step {each['step']}: {what}</b><br>{advice}</li>")
        if run.unread:
            said = f"{run.label}: lines that are damaged and left out: {run.unread}"
            found.append(f"<li><b>{escape(said)}</b></li>")
    if not found:
        return '<section class="calm">No warnings.</section>'
    return f'<section class="warnings"><h2>Warnings</h2><ul>{"".join(found)}</ul></section>'


def duration(seconds: float) -> str:
    """40 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _time(start: dict[str, Any]) -> str:
    try:
        when = datetime.fromisoformat(str(start["time"])).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        when = str(start["time"])
    return f"step {start['step']} ({when})" if start.get("step") else when
