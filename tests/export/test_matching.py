"""A matching model as a bundle: verified, in both precisions, with and without shading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lively import SMALL_LITE, lively_checkpoint, speckle

from sonomime.export.bundle import export_bundle
from sonomime.export.verify import Frames
from sonomime.runtime import Animator
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.training.models.base import Precision
from sonomime.training.torch_backend import open_session

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


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_an_aligned_bundle_moves_as_its_checkpoint(
    scale: float, bundles: Callable[..., Path]
) -> None:
    """Verification aligns nothing, so the path of an alignment is compared here."""
    bundle = bundles("lite", "fp32", *SMALL_LITE)
    checkpoint = lively_checkpoint("lite", SMALL_LITE)
    pictures = [speckle(128, 1, seed) for seed in range(3)]
    found = []
    for opened in (Animator.open(bundle, threads=1), Animator(open_session(checkpoint))):
        with opened as animator:
            animator.set_source(pictures[0])
            animator.set_reference(pictures[1])
            animator.align()
            by_pictures = animator.read("alignment")
            animator.session.align(by_pictures * np.float32([0.7, 0.9]) + np.float32(0.1))
            animator.session.set_control("scale", scale)
            animator.animate(pictures[2])
            found.append([by_pictures, *map(animator.read, ("displacement", "shading"))])
    for exported, trained in zip(*found, strict=True):
        assert exported == pytest.approx(trained, abs=2e-3)
    moved = np.abs(found[0][1]).mean()
    assert moved > 0.01, "something moves"
