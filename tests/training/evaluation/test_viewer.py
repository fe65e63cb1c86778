"""What networks see of a run, and the rows of results.json that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sonomime.training.evaluation.distances import frechet
from sonomime.training.evaluation.judgement import judge
from sonomime.training.evaluation.networks.catalogue import Kind, Network
from sonomime.training.evaluation.networks.squeezenet import motion_features
from sonomime.training.evaluation.viewer import WINDOW, Viewer

SIZE = 8


class Levels(nn.Module):
    """Features of a picture: mean and deviation. Of a window: those of its first frame."""

    side = None

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        x = x[:, 0] if x.ndim == 5 else x
        return torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], 1)


class Pairs(Levels):
    """The distance of two pictures: that of their means."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [super().forward(x)]

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        return (a[0] - b[0])[:, 0].abs()


def network(module: nn.Module, **measures: str) -> Network:
    return Network("n", Kind(Levels, (), **measures), module, ["d" * 64], "n=f@d", True)


def pictures(count: int, seed: int) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return list(draw.integers(0, 256, (count, SIZE, SIZE)).astype(np.uint8))


def rows(units: int, **more: Any) -> list[dict[str, Any]]:
    return [{"subject": f"s{i}", "driven": 3, "methods": {}, **more} for i in range(units)]


def test_pairs_are_compared_frame_by_frame_and_averaged_over_clips() -> None:
    module = Pairs()
    viewer, found = Viewer([network(module, pair="gap")]), rows(4)
    expected = []
    for i, row in enumerate(found):
        truth, made = pictures(3, i), pictures(3, 10 + i)
        for x, y in zip(truth, made, strict=True):
            viewer.see({"model": y, "hold": truth[0], "truth": x})
        gaps = [abs(x.mean() - y.mean()) / 255 for x, y in zip(truth, made, strict=True)]
        expected.append(np.mean(gaps))
        row["methods"] = {name: {"perceptual": each} for name, each in viewer.end().items()}
        assert row["methods"]["model"]["perceptual"]["gap"] == pytest.approx(expected[-1], rel=1e-4)
    assert module.seen == 4 * (3 + 3 + 1)  # a still is seen once
    viewer.see({"truth": pictures(1, 9)[0]})  # of a transfer: there is nothing to compare it with
    assert module.seen == 4 * (3 + 3 + 1)
    (row,), warnings = judge(viewer, found, SIZE, 0)
    assert row["methods"]["model"]["mean"] == pytest.approx(np.mean(expected), rel=1e-4)
    low, high = (row["methods"]["model"][end] for end in ("low", "high"))
    assert min(expected) - 1e-4 <= low <= high <= max(expected) + 1e-4
    assert (row["clips"], row["frames"], row["subjects"], row["resolution"]) == (4, 12, 4, SIZE)
    assert row["sha256"] == ["d" * 64] and not warnings


def test_sets_are_compared_over_all_clips() -> None:
    viewer = Viewer([network(Levels(), frechet="fd", kernel="kd", windows="fv")])
    lengths, sets = [WINDOW, 2 * WINDOW + 3, WINDOW - 1], {"truth": [], "model": []}
    windows: dict[str, list[Tensor]] = {"truth": [], "model": []}
    for i, length in enumerate(lengths):
        both = {"truth": pictures(length, i), "model": pictures(length, 10 + i)}
        for t in range(length):
            viewer.see({name: each[t] for name, each in both.items()})
        assert viewer.end() == {}
        for name, each in both.items():
            with torch.inference_mode():
                features = Levels()(torch.from_numpy(np.stack(each))[:, None] / 255)
            sets[name].append(features.numpy())
            parts = features[: length // WINDOW * WINDOW].split(WINDOW) if length >= WINDOW else ()
            windows[name] += [motion_features(part) for part in parts]
    found, warnings = judge(viewer, rows(3), SIZE, 0)
    by_name = {row["measure"]: row for row in found}
    assert list(by_name) == ["fd", "kd", "fv"]
    expected = frechet(*map(np.concatenate, sets.values()))
    assert by_name["fd"]["methods"]["model"]["value"] == pytest.approx(expected, rel=1e-3)
    expected = frechet(*(torch.stack(each).numpy() for each in windows.values()))
    assert by_name["fv"]["methods"]["model"]["value"] == pytest.approx(expected, rel=1e-3)
    keys = ("clips", "clips_too_short", "frames", "windows", "features")
    assert [by_name["fd"][key] for key in keys] == [3, 0, sum(lengths), None, 2]
    assert [by_name["fv"][key] for key in keys] == [2, 1, 3 * WINDOW, 3, 4]
    assert by_name["fv"]["window_frames"] == WINDOW and by_name["kd"]["statistic"] == "kernel"
    assert len(warnings) == 1 and warnings[0].startswith("fv: 3 windows")


def test_windows_that_a_network_sees_whole() -> None:
    module = Levels()
    viewer, still = Viewer([network(module, windows="fv")]), pictures(1, 0)[0]
    for _ in range(2):
        for picture in pictures(2 * WINDOW, 3):
            viewer.see({"model": picture, "hold": still, "truth": picture})
        viewer.end()
    (row,), _ = judge(viewer, rows(2), SIZE, 0)
    assert module.seen == 2 * (2 + 2 + 1)  # windows, and one of the still
    assert row["methods"]["model"]["value"] == pytest.approx(0, abs=1e-6)
    assert row["methods"]["hold"]["value"] > 0 and row["windows"] == 4


def test_what_could_not_be_measured_is_said() -> None:
    named = network(Levels(), windows="fv")._replace(published=False)
    viewer = Viewer([named, network(Pairs(), pair="gap")])
    for picture in pictures(3, 0):
        viewer.see({"model": picture})
        viewer.see({"truth": picture})
    viewer.end()
    found, warnings = judge(viewer, rows(1), SIZE, 0)
    assert found == [] and [text.partition(":")[0] for text in warnings] == ["fv", "fv", "gap"]
