"""What the networks found, as results.json has it: one row per measure, with intervals.

A row names the network and the SHA-256 of its files, and has the numbers without which a distance
between sets means nothing: clips, frames, windows and their length, resolution, features. By method
it has the value with its interval.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ...runtime.support.progress import progress
from .distances import (
    frechet,
    kernel,
    kernel_blocks,
    standard_error,
    with_interval,
)
from .loop import Row
from .means import subjects_of, weighted_ratio
from .networks.catalogue import Network
from .viewer import TRUTH, WINDOW, Kept, Sample, Viewer


def judge(viewer: Viewer, rows: Sequence[Row], size: int, seed: int) -> tuple[list[Row], list[str]]:
    """The rows of every measure, and warnings: sets that are too small, files not published.

    Args:
        rows: of the clips or pairs, in the order in which the viewer saw them.
        size: S of the pictures that it saw.
    """
    steps: list[tuple[Row, str, Sample, Sample]] = []  # row, method, real, fake
    warnings: list[str] = []
    subjects = _shown(rows)
    pairs = (_of_pairs(network, rows, seed) for network in viewer.networks if network.kind.pair)
    found = [row for row in pairs if row["methods"]]
    for kept in viewer.kept():
        if not {TRUTH, "model"} <= kept.samples.keys():
            continue
        for row in _of_sets(kept, rows):
            found.append(row)
            real = kept.samples[TRUTH]
            fakes = ((method, kept.samples[method]) for method in kept.samples if method != TRUTH)
            steps += [(row, method, real, fake) for method, fake in fakes]
    for row, method, real, fake in progress(steps, label="distances"):
        distance = frechet if row["statistic"] == "frechet" else kernel
        value: Row = with_interval(distance, real, fake, subjects, seed)
        if distance is kernel:
            blocks = kernel_blocks(real.rows, fake.rows)
            value |= {"blocks": len(blocks), "standard_error": standard_error(blocks)}
        row["methods"][method] = value
    for row in found:
        row |= {"resolution": size, "seen_at": row["seen_at"] or size}
    measured = {row["measure"] for row in found}
    for network in viewer.networks:
        kind = network.kind
        if not network.published:
            names = ", ".join(kind.measures)
            warnings.append(f"{names}: not by the published file, but by the one that was named")
        for measure, lack in (
            (kind.pair, "no frame has a true one to be compared with"),
            (kind.windows, f"no clip has {WINDOW} frames"),
        ):
            if measure and measure not in measured:
                warnings.append(f"{measure}: not measured, for {lack}")
    return found, warnings + list(_too_few(found))


def _too_few(found: Sequence[Row]) -> Iterator[str]:
    for row in found:
        unit = "windows" if row["windows"] else "frames"
        if row["statistic"] != "frechet":
            continue
        count = min(row["frames"], row["real_frames"]) // (row["window_frames"] or 1)
        if count <= row["features"]:
            yield (
                f"{row['measure']}: {count} {unit} are too few for the covariance of "
                f"{row['features']} features, so it is too large; compare it only with one "
                f"of as many {unit}"
            )


def _shown(rows: Sequence[Row]) -> list[str]:
    """The subject that each clip or pair shows: of a pair, the source's."""
    return [row["subject" if "subject" in row else "source_subject"] for row in rows]


def _facts(network: Network, subjects: Collection[str]) -> Row:
    return {
        "network": network.name,
        "sha256": list(network.sha256),
        "seen_at": network.module.side,
        "subjects": len(subjects),
        "methods": {},
    }


def _of_pairs(network: Network, rows: Sequence[Row], seed: int) -> Row:
    measure, subjects = network.kind.pair, subjects_of(rows)
    seen = [
        {name: each.get("perceptual", {}) for name, each in row["methods"].items()} for row in rows
    ]
    found = {
        "measure": measure,
        "statistic": "mean",
        "clips": len(rows),
        "frames": sum(row["driven"] for row in rows),
        "windows": None,
        "features": None,
        **_facts(network, set().union(*subjects)),
    }
    for method in dict.fromkeys(name for each in seen for name in each):
        values = [each.get(method, {}).get(measure, math.nan) for each in seen]
        if interval := weighted_ratio(subjects, values, [1.0] * len(rows), seed):
            found["methods"][method] = interval
    return found


def _of_sets(kept: Kept, rows: Sequence[Row]) -> Iterator[Row]:
    subjects, real, model = set(_shown(rows)), kept.samples[TRUTH], kept.samples["model"]
    clips, kind, windows = len(np.unique(model.units)), kept.network.kind, kept.length > 1
    names = [(kind.frechet, "frechet"), (kind.kernel, "kernel")]
    for measure, statistic in [(kind.windows, "frechet")] if windows else names:
        yield {
            "measure": measure,
            "statistic": statistic,
            "clips": clips,
            "clips_too_short": len(rows) - clips,
            "frames": len(model.rows) * kept.length,
            "real_frames": len(real.rows) * kept.length,
            "windows": len(model.rows) if windows else None,
            "window_frames": kept.length if windows else None,
            "features": real.rows.shape[1],
            "subjects_drawn": len(subjects) // 2,
            **_facts(kept.network, subjects),
        }
