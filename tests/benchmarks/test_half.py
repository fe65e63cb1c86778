"""A half-precision bundle is held against its float32 one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_bundle import copy_bundle, edit_manifest, make_toy_bundle

from sonomime.benchmarks import half
from sonomime.benchmarks.half import compare
from sonomime.runtime.animator import Animator
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.support.errors import ConfigError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A toy, and the same that calls itself half."""
    single = make_toy_bundle(tmp_path / "single")
    folder = copy_bundle(single, tmp_path / "half")
    edit_manifest(folder, lambda data: data.update(precision="fp16"))
    return single, folder


@pytest.fixture
def clip(tmp_path: Path, make_video: Callable[..., Path], blob_frames: Callable[..., list]) -> Path:
    return make_video(tmp_path / "clips" / "blob.mp4", blob_frames(6))


@pytest.fixture(autouse=True)
def clips_folder(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()


def test_the_page(
    folders: tuple[Path, Path], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "SAMPLES", clip.parent)
    clip.rename(clip.with_name("driving.mp4"))
    out = tmp_path / "half.json"
    words = [str(folders[1]), "--bundle", str(folders[0]), "--frames", "4", "-o", str(out)]
    monkeypatch.setattr("sys.argv", ["half", *words])
    half.main()
    report = json.loads(out.read_text())
    assert report["golden"]["frames"] == 1 and report["frames"] == 4
    assert report["least_db"] == 120 and report["not_finite"] == 0


def test_what_differs_or_is_not_finite_is_counted(
    folders: tuple[Path, Path], clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single, other = map(Bundle.open, folders)
    real, read = Animator.animate, Animator.read

    def darker(self: Animator, frame: np.ndarray) -> np.ndarray:
        made = real(self, frame)
        return made // 2 if self.session.chain.precision == "fp16" else made

    def broken(self: Animator, name: str) -> np.ndarray:
        return read(self, name) * (np.nan if name == "deformation" else 1)

    monkeypatch.setattr(Animator, "animate", darker)
    monkeypatch.setattr(Animator, "read", broken)
    golden, (row,) = compare(single, other, [clip], 3, 1)
    assert golden.least_db < 30 and golden.levels_apart > 100
    assert row.frames == 3 and row.not_finite == 3 and row.least_db <= row.mean_db < 30


def test_bundles_that_are_no_pair(folders: tuple[Path, Path]) -> None:
    single = Bundle.open(folders[0])
    with pytest.raises(ConfigError, match="fp32 and fp32"):
        compare(single, single, [], 1, 1)
