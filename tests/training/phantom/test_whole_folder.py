"""A whole phantom folder, rendered: the same however it was made, and a dataset that trains."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.cli import main
from sonomime.runtime.media.video import open_source
from sonomime.training.data.dataset import find_clips, load_clip
from sonomime.training.phantom.generate import Settings, generate

pytestmark = pytest.mark.slow

SETTINGS = Settings("pelvic", seed=3, subjects=10, frames=2, pairs=1)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "whole"
    generate(folder, SETTINGS, 2)
    return folder


def frames(path: Path) -> NDArray[np.uint8]:
    with open_source(path, None, 1) as source:
        return np.stack([image for _, _, image in source])


def test_a_broken_run_that_goes_on_with_other_workers_gives_the_same(
    phantom: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(phantom, broken)
    # As after a run that was killed: some clips whole, one without its last file, no tables.
    for name in ("pelvic3-003", "pelvic3-008"):
        (broken / "clips" / f"{name}.mkv").unlink()
        (broken / "subjects" / f"{name}.json").unlink()
    for path in [*(broken / "truth").iterdir(), broken / "clips.csv", broken / "keypoints.csv"]:
        path.unlink()
    made = generate(broken, SETTINGS, 1)
    assert (made.clips_before, made.pairs_before, made.rendered) == (8, 0, 8)
    files = sorted(path.relative_to(phantom) for path in phantom.rglob("*.*"))
    assert files == sorted(path.relative_to(broken) for path in broken.rglob("*.*"))
    assert len(files) == 3 * 10 + 3 + 4
    for file in files:
        if file.suffix == ".mkv":  # a container has a random name in it
            np.testing.assert_array_equal(frames(phantom / file), frames(broken / file))
        else:
            assert (phantom / file).read_bytes() == (broken / file).read_bytes(), file


def test_a_true_prediction_starts_at_the_sources_rest(phantom: Path) -> None:
    (pair,) = csv.DictReader((phantom / "truth" / "pairs.csv").read_text().splitlines())
    truth = frames(phantom / "truth" / f"{pair['pair']}.mkv")
    other = frames(phantom / "truth" / f"{pair['pair']}.other.mkv")
    source, driving = frames(phantom / pair["source"]), frames(phantom / pair["driving"])
    assert truth.shape == other.shape == driving.shape == (2, 256, 256)
    with np.load(phantom / "truth" / f"{pair['pair']}.npz") as arrays:
        assert arrays["displacement"].dtype == arrays["keypoints"].dtype == np.float32
        np.testing.assert_array_equal(arrays["displacement"][0], 0)
        assert list(arrays["keypoint_names"]) == ["bladder_neck", "symphysis"]
        keypoints, sector = arrays["keypoints"], arrays["sector"]
    rows = list(csv.DictReader((phantom / "keypoints.csv").read_text().splitlines()))
    labels = {
        clip: np.array([[float(r["x"]), float(r["y"])] for r in rows if r["video"] == clip])
        for clip in (pair["source"], pair["driving"])
    }
    start, way = labels[pair["source"]][:2], labels[pair["driving"]].reshape(2, 2, 2)
    np.testing.assert_allclose(keypoints, start + way - way[0], atol=2e-3)
    # The same scatterers as the source's: only its noise is missing; the other has its own.
    gap = [np.abs(v[0].astype(int) - source[0])[sector].mean() for v in (truth, other)]
    assert gap[0] < 0.5 * gap[1]


def test_it_is_a_dataset(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = find_clips([phantom])
    assert (len(found.clips), found.warnings, found.unsupported) == (10, [], [])
    assert found.keypoint_names == ("bladder_neck", "symphysis")
    assert len(find_clips([phantom], split="test").clips) == 2
    clip = load_clip(found.clips[0], 256, 1)
    assert len(clip) == 2 and clip.visible.all()
    assert found.clips[0].displacement == phantom / "displacement" / "pelvic3-000.npz"


def test_it_trains(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sets = (
        "model.image_size=64", "model.matcher.grid=8", "model.matcher.stiff=8",
        "model.matcher.shading=8", "train.max_steps=2", "train.batch_size=1",
    )  # fmt: skip
    words = ["train", "lite", "--data", str(phantom), "-o", str(tmp_path / "run")]
    assert main([*words, *(word for value in sets for word in ("--set", value))]) == 0
    assert (tmp_path / "run" / "checkpoint.pt").exists()
