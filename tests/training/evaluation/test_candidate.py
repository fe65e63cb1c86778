"""What is evaluated: a bundle and a checkpoint, each as two animators."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sonomime.training.evaluation.candidate import open_candidate

from ...toy_bundle import make_toy_bundle
from ...toy_displacement import make_displacement_toy
from .conftest import SIZE
from .fakes import moving_clip


def test_absolute_and_relative_are_two_predictors(bundle: Path, checkpoint: Path) -> None:
    source, _, last = moving_clip(3, SIZE, 6.0)
    for path in (bundle, checkpoint):
        with open_candidate(path) as subject:
            results: list[np.ndarray] = []
            for predictor in (subject.own, subject.other):
                predictor.set_source(source)
                predictor.set_reference(last)
                predictor.animate(last)
                results.append(predictor.read("deformation"))
            # Relative to the frame itself nothing moves; absolute motion does.
            assert not np.allclose(*results)


def test_a_bundle_says_what_it_can_align_by(tmp_path: Path) -> None:
    able = {
        "toy": make_displacement_toy(tmp_path / "toy"),
        "blind": make_displacement_toy(tmp_path / "blind", landmarks=()),
        "keypoints": make_toy_bundle(tmp_path / "keypoints"),
    }
    found = {}
    for name, path in able.items():
        with open_candidate(path) as candidate:
            found[name] = (candidate.can_align, candidate.can_align_itself)
    assert found == {"toy": (True, True), "blind": (True, False), "keypoints": (False, False)}
