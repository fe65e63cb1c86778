"""Wiring that is refused, above all whatever leads the driving frame around the motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.bundle.checks import check_wiring, most_numbers
from sonomime.runtime.bundle.manifest import (
    Chain,
    ControlInput,
    DisplacementControl,
    ImageFormat,
    KeypointControl,
    Layers,
    Manifest,
    Recurrent,
    Stage,
    Tensor,
)
from sonomime.runtime.support.errors import BundleError


def retyped(manifest: Manifest, stage: str, tensor: str, **changes: Any) -> Manifest:
    """The manifest with one tensor of one stage changed."""

    def edit(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(replace(t, **changes) if t.name == tensor else t for t in tensors)

    (old,) = (each for each in manifest.stages if each.name == stage)
    new = replace(old, inputs=edit(old.inputs), outputs=edit(old.outputs))
    stages = tuple(new if each is old else each for each in manifest.stages)
    return replace(manifest, stages=stages)


@pytest.mark.parametrize(
    ("stage", "tensor", "changes", "words"),
    [
        ("generator", "deformation", {"shape": (1, 32, 32, 2)}, "[1, 32, 32, 2]"),
        ("generator", "deformation", {"dtype": "float16"}, "float32 [1, 64, 64, 2]"),
        ("generator", "frame", {"shape": (1, 3, 64, 64)}, "uint8 [1, 1, 64, 64]"),
        ("motion", "deformation", {"name": "source_small"}, "'source_small'"),
        ("motion", "deformation", {"name": "scale"}, "'scale'"),
        ("source", "source_image", {"dtype": "float32"}, "expected uint8"),
        ("keypoints", "driving_kp_value", {"shape": (1, 4, 2)}, "float32 [1, 4, 2]"),
        ("keypoints", "driving_kp_value", {"name": "kp"}, "'driving_'"),
        ("transfer", "relative", {"shape": (2,)}, "expected float32 [1]"),
        ("transfer", "reference_kp_value", {"name": "reference_kp"}, "'reference_kp'"),
        ("transfer", "next_state", {"shape": (1, 3)}, "'state'"),
        ("transfer", "next_state", {"name": "later"}, "'next_state' -> 'state'"),
    ],
)
def test_wiring_that_does_not_close(
    toy_bundle: Path, stage: str, tensor: str, changes: dict[str, Any], words: str
) -> None:
    manifest = retyped(Bundle.open(toy_bundle).manifest, stage, tensor, **changes)
    with pytest.raises(BundleError) as caught:
        check_wiring(manifest)
    assert words in caught.value.message


def test_roles_and_their_order(toy_bundle: Path) -> None:
    manifest = Bundle.open(toy_bundle).manifest
    source, keypoints, transfer, motion, generator = manifest.stages
    for stages in (
        (keypoints, source, transfer, motion, generator),
        (source, transfer, keypoints, motion, generator),
        (source, keypoints, transfer, motion, motion, generator),
        (source, transfer, motion, generator),
        (keypoints, transfer, motion, generator),
        (source, keypoints, replace(keypoints, name="again"), transfer, motion, generator),
        (source, keypoints, replace(transfer, name="moves"), motion, generator),
        (source, keypoints, transfer),
    ):
        with pytest.raises(BundleError):
            check_wiring(replace(manifest, stages=stages))


# -- the leak rule ---------------------------------------------------------------------------------

SIZE = 64


def tensor(name: str, *shape: int, dtype: Any = "float32") -> Tensor:
    return Tensor(name, dtype, shape, "")


def image(name: str) -> Tensor:
    return tensor(name, 1, 1, SIZE, SIZE, dtype="uint8")


DESCRIPTORS = tensor("driving_descriptors", 1, 16, 8, 8)
KEPT = tensor("reference_descriptors", 1, 16, 8, 8)
FEATURE = tensor("source_feature", 1, 8, 32, 32)
DISPLACEMENT = tensor("displacement", 1, 8, 8, 2)
SHADING = tensor("shading", 1, 1, 4, 4)
STATE, NEXT = tensor("state", 1, 8, 8, 2), tensor("next_state", 1, 8, 8, 2)
DEFORMATION = tensor("deformation", 1, 32, 32, 2)
GAIN, OFFSET, GATE = (tensor(name, 1, 1, 32, 32) for name in ("gain", "offset", "gate"))
SCALE = ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of the motion")

SOURCE = Stage("source", "source", (image("source_image"),), (FEATURE,))
OBSERVE = Stage("observe", "observe", (image("driving_frame"),), (DESCRIPTORS,))
REFERENCE = Stage("reference", "reference", (DESCRIPTORS, FEATURE), (KEPT,))
TRANSFER = Stage(
    "transfer", "frame", (KEPT, DESCRIPTORS, FEATURE, tensor("scale", 1), STATE),
    (DISPLACEMENT, SHADING, NEXT),
)  # fmt: skip
MOTION = Stage("motion", "frame", (DISPLACEMENT,), (DEFORMATION,))
GENERATOR = Stage(
    "generator", "frame", (FEATURE, DEFORMATION, SHADING), (image("frame"), GAIN, OFFSET, GATE)
)
MATCHING = Chain(
    image=ImageFormat(SIZE, 1),
    geometry="half_pixel",
    control=DisplacementControl(8, 8, 4, 4),
    stages=(SOURCE, OBSERVE, REFERENCE, TRANSFER, MOTION, GENERATOR),
    controls=(SCALE,),
    recurrent=(Recurrent("next_state", "state"),),
)
COPIED = replace(MATCHING, stages=tuple(each for each in MATCHING.stages if each is not REFERENCE))
"""Without a reference stage: the reference's descriptors are a copy of what `observe` made."""


def changed(
    name: str, taken: tuple[Tensor, ...] = (), made: tuple[Tensor, ...] = (),
    state: tuple[str, str] | None = None, chain: Chain = MATCHING,
) -> Chain:  # fmt: skip
    """The chain, one stage of which takes and makes more, perhaps with one more state."""
    (old,) = (stage for stage in chain.stages if stage.name == name)
    new = replace(old, inputs=(*old.inputs, *taken), outputs=(*old.outputs, *made))
    stages = tuple(new if stage is old else stage for stage in chain.stages)
    states = (Recurrent(*state),) if state else ()
    return replace(chain, stages=stages, recurrent=(*chain.recurrent, *states))


def test_motion_by_matching_fits_the_contract() -> None:
    check_wiring(MATCHING)
    assert MATCHING.motions() == ("relative",)
    # 4,096 numbers would be the whole of a picture of 64 x 64.
    assert [most_numbers(size) for size in (16, 64, 128, 256, 512)] == [16, 256, 1024, 4096, 4096]
    check_wiring(COPIED)
    assert COPIED.copied_references() == [("driving_descriptors", "reference_descriptors")]
    check_wiring(changed("transfer", made=(tensor("extra", most_numbers(SIZE) - 128 - 16),)))


DRIVING = image("driving_frame")
COPY = tensor("driving_copy", 1, SIZE, SIZE)
CARRIED = tensor("carried", 1, SIZE)
TEXTURE = tensor("texture", 1, SIZE, SIZE)
OLD = tensor("old", 1, 8, 8, 2)
BEFORE_TRANSFER = Stage("carry", "frame", (DESCRIPTORS,), (CARRIED,))
LEAKS = {
    "the generator takes the driving frame": changed("generator", (DRIVING,)),
    "transfer takes the driving frame": changed("transfer", (DRIVING,)),
    "the source takes the driving frame": changed("source", (DRIVING,)),
    "the reference takes the driving frame": changed("reference", (DRIVING,)),
    "observe passes the frame on under another name": changed(
        "generator", (COPY,), chain=changed("observe", made=(COPY,))
    ),
    "observe makes something without its prefix": changed("observe", made=(TEXTURE,)),
    "observe makes a reference": changed("observe", made=(tensor("reference_x", 1, SIZE, SIZE),)),
    "observe takes the source too": changed("observe", (FEATURE,)),
    "the generator takes descriptors": changed("generator", (DESCRIPTORS,)),
    "the generator takes the reference": changed("generator", (KEPT,)),
    "the generator takes a copied reference": changed("generator", (KEPT,), chain=COPIED),
    "the reference makes something without its prefix": changed("reference", made=(TEXTURE,)),
    "a stage before transfer carries descriptors over": replace(
        MATCHING,
        stages=(
            *MATCHING.stages[:3], BEFORE_TRANSFER, *changed("generator", (CARRIED,)).stages[3:]
        ),
    ),
    "transfer passes on more than motion": changed(
        "transfer", made=(tensor("extra", most_numbers(SIZE) - 128 - 16 + 1),)
    ),
    "transfer passes it on in two parts": changed(
        "transfer", made=(tensor("a", 100), tensor("b", 100))
    ),
    "the generator takes transfer's next state": changed("generator", (NEXT,)),
    "the generator takes transfer's state": changed("generator", (STATE,)),
    "a state leads around transfer": changed(
        "generator", (tensor("old", 1, 16, 8, 8),), state=("driving_descriptors", "old")
    ),
    "transfer's output becomes a state of the generator": changed(
        "generator", (OLD,), state=("displacement", "old")
    ),
    "the generator gathers frames in a state of its own": changed(
        "generator", (TEXTURE,), (tensor("gathered", 1, SIZE, SIZE),), ("gathered", "texture")
    ),
    "the source takes a state": changed("source", (OLD,), state=("displacement", "old")),
    "a source stage is named like driving": changed("source", made=(tensor("driving_x", 1, SIZE),)),
}  # fmt: skip


@pytest.mark.parametrize("way", LEAKS)
def test_a_bundle_that_passes_the_driving_frame_around_the_motion_is_refused(way: str) -> None:
    with pytest.raises(BundleError):
        check_wiring(LEAKS[way])


# -- what carries the motion, controls and layers --------------------------------------------------

NO_REFERENCE = tuple(
    replace(stage, inputs=tuple(t for t in stage.inputs if t is not KEPT))
    for stage in COPIED.stages
)


def control(name: str) -> dict[str, Any]:
    return {"controls": (SCALE, ControlInput(name, 1.0, (0.0, 1.0), "", ""))}


@pytest.mark.parametrize(
    "changes",
    [
        {"control": DisplacementControl(16, 8, 4, 4)},
        {"control": DisplacementControl(8, 8, 8, 8)},
        {"control": DisplacementControl(8, 8, 4, 4, landmarks=("one",))},
        {"control": KeypointControl(3)},
        {"stages": changed("transfer", made=(tensor("confidence", 1, 1, 8, 4),)).stages},
        {"stages": changed("transfer", made=(tensor("quality", 1, 5),)).stages},
        {"stages": NO_REFERENCE},
        control("relative"),
        control("driving_frame"),
        control("source_image"),
        control("state"),
        control("shading"),
        control("idle"),
        control("reference_scale")
        | {"stages": changed("transfer", (tensor("reference_scale", 1),)).stages},
    ],
    ids=range(14),
)
def test_controls_that_do_not_fit_the_stages(changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        check_wiring(replace(MATCHING, **changes))


def test_layers_are_made_of_every_frame_in_their_shapes() -> None:
    layers = Layers("layer_deformation", "deformation", "gain", "offset", "gate")
    made = tensor("layer_deformation", 1, 32, 32, 2), tensor("scalar")
    chain = changed("generator", made=made)
    check_wiring(replace(chain, layers=layers))
    for wrong in (
        {"gain": "nothing"},
        {"stiff": "gate"},
        {"gate": "layer_deformation"},
        {"offset": "scalar"},
    ):
        with pytest.raises(BundleError):
            check_wiring(replace(chain, layers=replace(layers, **wrong)))
