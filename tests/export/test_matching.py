"""An aligned bundle of a matching model: verification itself aligns nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lively import SMALL_LITE, lively_checkpoint, speckle

from sonomime.runtime import Animator
from sonomime.training.torch_backend import open_session


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_an_aligned_bundle_moves_as_its_checkpoint(
    scale: float, bundles: Callable[..., Path]
) -> None:
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
