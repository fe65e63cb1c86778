"""A matching model as a bundle: verified, in both precisions, with and without shading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lively import SMALL_LITE, lively_checkpoint, speckle

from sonomime.export.bundle import export_bundle
from sonomime.export.verify import Frames
from sonomime.runtime import Animator
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.training.models.base import Precision

SMALL_COLOUR = (*SMALL_LITE, "model.channels=3", "model.matcher.shading=0")


@pytest.mark.parametrize(
    ("precision", "overrides"),
    [("fp32", SMALL_LITE), ("fp16", SMALL_LITE), ("fp32", SMALL_COLOUR)],
)
def test_export(precision: Precision, overrides: tuple[str, ...], tmp_path: Path) -> None:
    checkpoint = lively_checkpoint("lite", overrides)
    model = checkpoint.config.model
    pictures = [speckle(128, model.channels, seed) for seed in range(4)]
    frames = Frames(pictures[0], tuple(pictures[1:]))
    parity = export_bundle(checkpoint, "0" * 64, tmp_path / "out", frames, precision)
    assert parity.psnr_db >= 45
    assert parity.frame_levels <= 1 or precision == "fp16"
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.preset == "lite" and manifest.precision == precision
    assert manifest.control.kind == "displacement"
    assert manifest.control.shading_height == model.matcher.shading
    assert manifest.layers is not None and manifest.golden.motion == "relative"
    with Animator.open(tmp_path / "out", threads=1) as animator:
        animator.set_source(pictures[0])
        animator.set_reference(pictures[1])
        moved = animator.animate(pictures[2])
        still = animator.animate(pictures[1])
    assert moved.shape == pictures[0].shape and not np.array_equal(moved, still)
