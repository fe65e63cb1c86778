"""The comparison finds what is wrong, wherever it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lively import SMALL, lively_checkpoint, speckle

from sonomime.export import verify as module
from sonomime.export.verify import Frames, expected_tensors, read_frames, verify
from sonomime.runtime.media.frames import Image, png_bytes
from sonomime.runtime.support.errors import ExportError, InputError
from sonomime.training.models.base import Tensors
from sonomime.training.models.families import family_of
from sonomime.training.models.stage_modules import Precision

FRAMES = Frames(speckle(128), (speckle(128, seed=1), speckle(128, seed=2)))


@pytest.fixture
def expected() -> list[Tensors]:
    model = lively_checkpoint("ours-pt", SMALL).model()
    family = family_of(model.config)
    return expected_tensors(family.oracle(model), family.chain(model), FRAMES)


@pytest.mark.parametrize(
    ("name", "precision", "error"),
    [
        ("source_feature", "fp32", 3e-3),
        ("driving_kp_value", "fp32", 3e-3),
        ("target_kp_value", "fp32", 3e-3),
        ("deformation", "fp32", 3e-3),
        ("frame", "fp32", 100),
        ("driving_kp_jacobian", "fp16", np.inf),
    ],
)
def test_a_wrong_tensor_is_named(
    small: Path, expected: list[Tensors], name: str, precision: Precision, error: float
) -> None:
    wrong = expected[-1][name].copy()
    with np.errstate(over="ignore"):  # a grey level may wrap around
        wrong.flat[wrong.size // 2] += wrong.dtype.type(error)
    expected[-1][name] = wrong
    with pytest.raises(ExportError) as caught:
        verify(small, FRAMES, expected, precision)
    # A tensor that a later stage reads is found where it is made, before it is read.
    assert f".{name}" in caught.value.message


@pytest.mark.parametrize("control", ["scale", "dt_seconds", "min_cutoff", "beta", "relative"])
def test_every_control_is_compared(small: Path, control: str) -> None:
    """Here it is the model that ignores one."""
    model = lively_checkpoint("ours-pt", SMALL).model()
    family = family_of(model.config)
    oracle = family.oracle(model)
    hear = oracle.animate

    def animate(frame: Image, controls: dict[str, float]) -> Tensors:
        heard = {name: value for name, value in controls.items() if name != control}
        stated = {name: np.float32([value]) for name, value in controls.items()}
        return hear(frame, heard) | stated

    oracle.animate = animate
    frames = Frames(speckle(128), tuple(speckle(128, seed=seed) for seed in (1, 2, 3)))
    with pytest.raises(ExportError):
        verify(small, frames, expected_tensors(oracle, family.chain(model), frames), "fp32")


def test_agreement_is_measured_and_in_half_precision_judged_in_decibels(
    small: Path, expected: list[Tensors]
) -> None:
    parity = verify(small, FRAMES, expected, "fp16")
    assert parity.frame_levels <= 1 and parity.psnr_db > 60
    assert len(parity.stages) == 4 + 2 + 3 + 2 + 1
    assert max(parity.stages[name] for name in parity.stages if name != "generator.frame") < 1e-4
    noise = np.random.default_rng(0).integers(-6, 7, expected[0]["frame"].shape)
    expected[0]["frame"] = np.clip(expected[0]["frame"] + noise, 0, 255).astype(np.uint8)
    with pytest.raises(ExportError, match="dB"):
        verify(small, FRAMES, expected, "fp16")


def test_frames_of_a_folder(tmp_path: Path) -> None:
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(png_bytes(np.full((40, 60), 20 * i, np.uint8)))
    frames = read_frames(tmp_path, 64, 3)
    assert frames.source.shape == (64, 64, 3) and frames.source.max() == 0
    assert [int(frame.max()) for frame in frames.driving] == [20, 80, 120, 180]
    frames = read_frames(tmp_path / "0.png", 64, 1)  # one image drives itself
    assert all(np.array_equal(frame, frames.source) for frame in frames.driving)
    with pytest.raises(InputError):
        read_frames(tmp_path / "none.mp4", 64, 1)


def test_samples_are_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = read_frames(None, 256, 1)
    assert frames.source.shape == (256, 256) and len(frames.driving) == 4
    monkeypatch.setattr(module, "SAMPLES", tmp_path)
    with pytest.raises(ExportError) as caught:
        read_frames(None, 256, 1)
    assert "--frames" in caught.value.hint
