"""Reports for people: lines and tables, as plain text or as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from ..training.markdown import grid
from .measure import FIGURES, cell_text, columns_used, table, value_at
from .nvidia_smi import state_line
from .opening import bundle_line
from .steadiness import warnings_of


class Table(NamedTuple):
    """Rows by name; `columns`: by heading, where in a row the value is. See `table`."""

    title: str
    rows: list[tuple[str, Mapping[str, Any]]]
    columns: Mapping[str, str]


Part: TypeAlias = "str | Table"

LATENCY = {"frames": "finished"} | {name: f"milliseconds.{name}" for name in FIGURES}
FLOW = {
    "due": "due", "dropped": "dropped", "missed": "missed",
    "a second": "frames_per_second", "jitter ms": "jitter_ms", "longest gap ms": "longest_gap_ms",
}  # fmt: skip


def as_text(parts: Iterable[Part]) -> Iterator[str]:
    """Lines for a terminal."""
    for part in parts:
        if isinstance(part, str):
            yield part
        else:
            yield ""
            yield from table(part.title, part.rows, part.columns)


def as_markdown(title: str, parts: Iterable[Part]) -> str:
    """A section of Markdown, without an end of line."""
    said = [f"## {title}"]
    for part in parts:
        if isinstance(part, str):
            said.append(part)
            continue
        used = columns_used(part.rows, part.columns)
        rows = [
            [name, *(cell_text(value_at(row, used[heading])) for heading in used)]
            for name, row in part.rows
        ]
        said.append(grid((part.title, *used), rows))
    return "\n\n".join(said)


def latency_parts(report: dict[str, Any]) -> Iterator[Part]:
    """The report of `measure_latency`."""
    machine, precision = report["environment"], report["precision"]
    asked = "" if precision == report["bundle"]["precision"] else f", run in {precision}"
    yield bundle_line(report["bundle"]) + asked
    yield f"{report['device']}, {threads_line(report['threads'])}, {machine['cpu']}"
    yield from warnings_of(report["steadiness"])
    for run in report.get("cold_start_ms", ()):
        steps = ", ".join(f"{k} {v:.0f}" for k, v in run.items() if k != "total")
        yield f"cold start {run['total']:.0f} ms: {steps}"
    yield from _memory(report["memory_mb"])
    yield _agreement(report["parity"])
    if "gpu" in report:
        yield "stages by CUDA events, " + ("one CUDA graph" if report["cuda_graph"] else "no graph")
        yield state_line(report["gpu"])
    loops = [each for each in report["scenarios"] if "milliseconds" in each]
    rows = [(label(each), each) for each in loops]
    for more in report.get("streams", {}).get("scenarios", ()):
        rows.append((f"{len(more['streams'])} streams, {label(more)}", more))
        rows += [(f"- stream {i + 1}, {label(s)}", s) for i, s in enumerate(more["streams"])]
    yield Table("latency, ms", rows, LATENCY)
    yield Table("frames", rows, FLOW)
    stages = [(name, values) for name, values in report["milliseconds"].items()]
    yield Table("stages, ms", stages, {name: name for name in ("count", *FIGURES)})
    yield f"runtime's own share of a frame: {report['own_share']:.2%}"
    for each in report["scenarios"]:
        if each["scenario"] == "offline":
            yield (
                "from file to file: {frames} frames of {driving} in {seconds:.1f} s, "
                "{frames_per_second:.1f} a second".format(**each)
                + ", as {}x{} {output}".format(*each["size"], output=each["output"])
            )
    if "streams" in report:
        more = report["streams"]
        memory = more["memory_mb_each"]
        added = "" if memory is None else f", and {memory:.0f} MB more"
        yield f"each of {more['streams']} streams: {threads_line(more['threads_each'])}{added}"


def label(scenario: Mapping[str, Any]) -> str:
    """A loop's name, which says how frames came and what became of those that are not timed."""
    if scenario["rate_hz"] is None:
        speed = scenario["frames_per_second"]
        return "closed loop" + ("" if speed is None else f", {speed:.1f} a second")
    dropped = "{dropped} of {due} dropped".format(**scenario)
    return f"{scenario['rate_hz']:g} Hz, {dropped}"


def _memory(found: Mapping[str, float | None]) -> Iterator[str]:
    peak, opening = found["peak"], found["opening"]
    if peak is not None and opening is not None:
        yield f"memory: {peak:.0f} MB at most; opening the bundle added {opening:.0f} MB"


def _agreement(found: Mapping[str, Any]) -> str:
    if "absent" in found:
        return f"not compared with ONNX Runtime on the CPU: {found['absent']}"
    return f"beside {{reference}}: {apart_line(found)}".format(**found)


def apart_line(found: Mapping[str, Any]) -> str:
    """What `differences` found."""
    if not found["levels_apart"]:
        return "the same {frames} frames, bit for bit".format(**found)
    return (
        "{frames} frames, at least {psnr_db:.1f} dB and at most {levels_apart} of 255 levels apart"
    ).format(**found)


def threads_line(count: int) -> str:
    """So many threads."""
    return f"{count} thread{'s' * (count != 1)}"


def compare_parts(report: dict[str, Any]) -> Iterator[Part]:
    """The report of `compare`."""
    machine, runs = report["environment"], report["candidates"]
    yield bundle_line(report["bundle"])
    yield f"{threads_line(report['threads'])}, {machine['cpu']}"
    yield from warnings_of(report["steadiness"])
    for each in runs:
        said = each["device"].endswith(each["precision"])
        shown = f"{each['name']}: {each['device']}" + ("" if said else f", {each['precision']}")
        if each["agreement"] is not None:
            shown += f"; beside {runs[0]['name']}: {apart_line(each['agreement'])}"
        yield shown
    rows = [(each["name"], each) for each in runs]
    yield Table("closed loop, none dropped, ms", rows, LATENCY)
    for each in report["ratios"]:
        yield ratio_line(each)


def ratio_line(found: Mapping[str, Any]) -> str:
    """What `ratio_of` found, for a person."""
    if found["low"] is None:
        span = "no interval from so few"
    else:
        span = "{share:.0%} interval {low:.2f} to {high:.2f}".format(**found)
    return "{name} takes {ratio:.2f} times as long as {to}".format(**found) + (
        f" ({span}, {found['blocks']} blocks)"
    )
