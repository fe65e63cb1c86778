"""What an Animator is asked for: controls of the model, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from arithmetic_chain import CHAIN, Arithmetic, level
from toy_bundle import blob, copy_bundle, edit_manifest, rename_tensor

from sonomime.runtime import Animator
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import ConfigError


def test_options_that_a_model_cannot_honour_are_refused() -> None:
    """A chain of displacements has no absolute motion, no smoothing and no keypoints."""
    refused: list[dict[str, Any]] = [
        {"motion": "absolute"}, {"smooth": True}, {"smooth": (1.0, 2.0)}, {"scale": "hull"},
    ]  # fmt: skip
    for options in refused:
        with pytest.raises(ConfigError) as caught:
            Animator(Session(CHAIN, Arithmetic()), **options)
        assert caught.value.hint
    with pytest.raises(ConfigError):
        Animator(Session(CHAIN, Arithmetic()), scale="big")  # type: ignore[arg-type]
    with Animator(Session(CHAIN, Arithmetic()), scale=2.0) as animator:
        assert animator.read("scale")[0] == 2
        with pytest.raises(ConfigError):
            animator.detect(level(1)[0, 0])
    nothing_set = replace(
        CHAIN,
        controls=(),
        stages=tuple(
            replace(stage, inputs=tuple(t for t in stage.inputs if t.name != "scale"))
            for stage in CHAIN.stages
        ),
    )
    with pytest.raises(ConfigError):
        Animator(Session(nothing_set, Arithmetic()), scale=2.0)
    Animator(Session(nothing_set, Arithmetic()))


def test_options_count_whatever_the_models_defaults_are(toy_bundle: Path, tmp_path: Path) -> None:
    folder = copy_bundle(toy_bundle, tmp_path / "toy")
    changes = {
        "scale": {"default": 0.5}, "min_cutoff": {"default": 1.5}, "dt_seconds": {"range": [0, 1]}
    }  # fmt: skip

    def change(data: dict[str, Any]) -> None:
        for control in data["controls"]:
            control |= changes.get(control["name"], {})

    edit_manifest(folder, change)
    with Animator.open(folder) as animator:
        assert animator.read("scale")[0] == 1 and animator.read("min_cutoff")[0] == 0
        animator.set_source(blob(64, 0, 0))
        animator.animate(blob(64, 0, 0), 0.0)
        animator.animate(blob(64, 0, 0), 1.7e9)  # a pause, or a clock that was set
        assert animator.read("dt_seconds")[0] == 1


def test_a_hull_beyond_the_models_range_goes_as_far_as_that(
    toy_bundle: Path, tmp_path: Path
) -> None:
    folder = copy_bundle(toy_bundle, tmp_path / "toy")
    edit_manifest(folder, lambda data: data["controls"][1].update(range=[1.1, 1.25], default=1.2))
    with pytest.raises(ConfigError):
        Animator.open(folder, scale=2.0)
    with Animator.open(folder, scale="hull") as animator:
        animator.set_source(blob(64, 0, 0))
        for _ in range(2):  # the toy's hulls are equal, so 1 is what it measures
            animator.animate(blob(64, 0, 0))
            assert animator.read("scale")[0] == pytest.approx(1.1)


def test_a_bundle_without_the_sources_keypoints_has_no_hull(
    toy_bundle: Path, tmp_path: Path
) -> None:
    """It is valid, and used to end in a KeyError."""
    folder = copy_bundle(toy_bundle, tmp_path / "toy")
    rename_tensor(folder, "source_kp_value", "source_points")
    with Animator.open(folder) as animator:
        animator.set_source(blob(64, 0, 0))
        animator.animate(blob(64, 0, 0))
    with pytest.raises(ConfigError):
        Animator.open(folder, scale="hull")
