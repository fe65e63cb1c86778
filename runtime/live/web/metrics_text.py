"""Metrics in the text form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..screen import STATES


def metrics_text(state: dict[str, Any], viewers: int) -> str:
    """Of the state that the page gets; values that are not known are left out."""
    now = state["metrics"]
    lines = [*_metric("running", "gauge", "1 while a stream runs", [("", int(state["running"]))])]
    lines += _metric("viewers", "gauge", "who watches the page", [("", viewers)])
    if now is not None:
        shown = [(f'{{state="{name}"}}', now["frames_by_state"].get(name, 0)) for name in STATES]
        lines += _metric("frames_total", "counter", "frames shown", shown)
        is_now = [(f'{{state="{name}"}}', int(now["state"] == name)) for name in STATES]
        lines += _metric("state", "gauge", "1 for the state of the picture", is_now)
        lines += _metric("fps", "gauge", "frames a second", [("", now["fps"])])
        quantiles = [(f'{{quantile="{q}"}}', (now["latency_ms"] or {}).get(name))
                     for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]  # fmt: skip
        about = "from a driving frame's arrival to the synthesized frame"
        lines += _metric("latency_milliseconds", "gauge", about, quantiles)
        dropped = [(f'{{where="{_plain(name)}"}}', n) for name, n in now["dropped"].items()]
        lines += _metric("dropped_total", "counter", "frames replaced by newer ones", dropped)
        about = "what makes the frames was lost, and replaced by another one"
        lines += _metric("renderers_lost_total", "counter", about, [("", now["renderers_lost"])])
        lines += _metric("confidence", "gauge", "of the last frame", [("", now["confidence"])])
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, about: str, values: Iterable[tuple[str, Any]]) -> list[str]:
    known = [f"sonomime_{name}{labels} {value}" for labels, value in values if value is not None]
    head = [f"# HELP sonomime_{name} {about}", f"# TYPE sonomime_{name} {kind}"]
    return head + known if known else []


def _plain(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
