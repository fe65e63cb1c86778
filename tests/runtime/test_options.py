"""An Animator's options: controls of the model, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from arithmetic_chain import CHAIN, Arithmetic, with_inputs
from toy_bundle import blob, copy_bundle, edit_manifest

from sonomime.runtime import Animator, Smoothing
from sonomime.runtime.bundle.manifest import Chain, ControlInput
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import ConfigError

SHADE = ControlInput("shade", 0.25, (0.0, 1.0), "", "share of the shading")
SHADED = replace(with_inputs(CHAIN, "shade"), controls=(*CHAIN.controls, SHADE))
NO_CONTROLS = replace(with_inputs(CHAIN, without="scale"), controls=())


def animator(chain: Chain, **options: Any) -> Animator:
    return Animator(Session(chain, Arithmetic(chain)), **options)


@pytest.mark.parametrize(
    ("chain", "options"),
    [
        (CHAIN, {"motion": "absolute"}), (CHAIN, {"smooth": True}), (CHAIN, {"smooth": (1.0, 2.0)}),
        (CHAIN, {"scale": "hull"}), (CHAIN, {"scale": "big"}), (NO_CONTROLS, {"scale": 2.0}),
        (CHAIN, {"shading": "off"}), (CHAIN, {"shading": "low"}), (SHADED, {"shading": "half"}),
    ],
)  # fmt: skip
def test_what_a_model_cannot_honour_is_refused(chain: Chain, options: dict[str, Any]) -> None:
    """A chain of displacements has no absolute motion, no smoothing and no keypoints."""
    with pytest.raises(ConfigError):
        animator(chain, **options)
    animator(chain).close()


def test_arguments_out_of_range(toy_bundle: Path) -> None:
    for options in (
        {"motion": "sideways"}, {"scale": 0.0}, {"scale": float("nan")}, {"smooth": (0.0, 1.0)},
        {"smooth": (1.0, -1.0)}, {"smooth": (1.0,)}, {"smooth": "yes"}, {"threads": 0},
        {"backend": "tensor-rt"},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            Animator.open(toy_bundle, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "control", "value"),
    [
        ({}, "shade", 1.0), ({"shading": "off"}, "shade", 0.0), ({"shading": "low"}, "shade", 0.5),
        ({"scale": 2.0}, "scale", 2.0),
    ],
)  # fmt: skip
def test_options_set_controls(options: dict[str, Any], control: str, value: float) -> None:
    with animator(SHADED, **options) as opened:
        assert opened.read(control)[0] == value


@pytest.mark.parametrize(
    ("smooth", "expected"),
    [(True, Smoothing()), (Smoothing(beta=1), (1.5, 1)), ((2.0, 3.0), (2, 3)), (False, (0, 0))],
)
def test_smoothing_by_name_pair_and_default(
    toy_bundle: Path, smooth: Any, expected: Sequence[float]
) -> None:
    with Animator.open(toy_bundle, smooth=smooth) as opened:
        assert (opened.read("min_cutoff")[0], opened.read("beta")[0]) == pytest.approx(expected)


def test_options_count_whatever_the_models_defaults_are(toy_bundle: Path, tmp_path: Path) -> None:
    folder = copy_bundle(toy_bundle, tmp_path / "toy")
    changes = {
        "scale": {"default": 0.5}, "min_cutoff": {"default": 1.5}, "dt_seconds": {"range": [0, 1]}
    }  # fmt: skip

    def change(data: dict[str, Any]) -> None:
        for control in data["controls"]:
            control |= changes.get(control["name"], {})

    edit_manifest(folder, change)
    with Animator.open(folder) as opened:
        assert opened.read("scale")[0] == 1 and opened.read("min_cutoff")[0] == 0
        opened.set_source(blob(64, 0, 0))
        opened.animate(blob(64, 0, 0), 0.0)
        opened.animate(blob(64, 0, 0), 1.7e9)  # a pause, or a clock that was set
        assert opened.read("dt_seconds")[0] == 1


def test_the_scale_by_hull_stays_in_the_models_range(toy_bundle: Path, tmp_path: Path) -> None:
    folder = copy_bundle(toy_bundle, tmp_path / "toy")
    edit_manifest(folder, lambda data: data["controls"][1].update(range=[1.1, 1.25], default=1.2))
    with pytest.raises(ConfigError):
        Animator.open(folder, scale=2.0)
    with Animator.open(folder, scale="hull") as opened:
        opened.set_source(blob(64, 0, 0))
        for _ in range(2):  # the toy's hulls are equal, so it measures 1
            opened.animate(blob(64, 0, 0))
            assert opened.read("scale")[0] == pytest.approx(1.1)
