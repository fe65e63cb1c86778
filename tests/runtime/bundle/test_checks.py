"""Wiring that is refused, above all whatever leads the driving frame around the motion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from arithmetic_chain import tensor, with_stage

from sonomime.runtime.bundle.checks import check_wiring, most_numbers
from sonomime.runtime.bundle.manifest import (
    Chain,
    ControlInput,
    DisplacementControl,
    ImageFormat,
    KeypointControl,
    Layers,
    Recurrent,
    Stage,
    Tensor,
)
from sonomime.runtime.support.errors import BundleError

SIZE = 64


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


def staged(*stages: Stage, chain: Chain = MATCHING) -> Chain:
    return replace(chain, stages=stages)


def changed(
    name: str, taken: tuple[Tensor, ...] = (), made: tuple[Tensor, ...] = (),
    state: tuple[str, str] | None = None, chain: Chain = MATCHING,
) -> Chain:  # fmt: skip
    """The chain, one stage of which takes and makes more, perhaps with one more state."""
    (old,) = (stage for stage in chain.stages if stage.name == name)
    more = with_stage(chain, name, inputs=(*old.inputs, *taken), outputs=(*old.outputs, *made))
    states = (Recurrent(*state),) if state else ()
    return replace(more, recurrent=(*chain.recurrent, *states))


def retyped(name: str, tensor: str, /, **changes: Any) -> Chain:
    """The chain with one tensor of one stage changed."""
    (old,) = (stage for stage in MATCHING.stages if stage.name == name)
    taken, made = (
        tuple(replace(t, **changes) if t.name == tensor else t for t in tensors)
        for tensors in (old.inputs, old.outputs)
    )
    return with_stage(MATCHING, name, inputs=taken, outputs=made)


def controlled(name: str, chain: Chain = MATCHING) -> Chain:
    return replace(chain, controls=(SCALE, ControlInput(name, 1.0, (0.0, 1.0), "", "")))


# Without a reference stage: the reference's descriptors are a copy of what `observe` made.
COPIED = staged(SOURCE, OBSERVE, TRANSFER, MOTION, GENERATOR)
DRIVING = image("driving_frame")
COPY = tensor("driving_copy", 1, SIZE, SIZE)
CARRIED = tensor("carried", 1, SIZE)
TEXTURE = tensor("texture", 1, SIZE, SIZE)
OLD = tensor("old", 1, 8, 8, 2)
MOST = most_numbers(SIZE) - 128 - 16
POINTS = changed("observe", made=(tensor("driving_kp_value", 1, 4, 2),))
NO_REFERENCE = replace(TRANSFER, inputs=TRANSFER.inputs[1:])
LAYERED = replace(
    changed("generator", made=(tensor("layer_deformation", 1, 32, 32, 2), tensor("scalar"))),
    layers=Layers("layer_deformation", "deformation", "gain", "offset", "gate"),
)


def layered(**layers: str) -> Chain:
    assert LAYERED.layers is not None
    return replace(LAYERED, layers=replace(LAYERED.layers, **layers))


def test_what_fits_the_contract() -> None:
    # 4,096 numbers would be the whole of a picture of 64 x 64.
    assert [most_numbers(size) for size in (16, 64, 128, 256, 512)] == [16, 256, 1024, 4096, 4096]
    assert MATCHING.motions() == ("relative",)
    assert COPIED.copied_references() == [("driving_descriptors", "reference_descriptors")]
    most = changed("transfer", made=(tensor("extra", MOST),))
    for chain in (MATCHING, COPIED, most, LAYERED, replace(POINTS, control=KeypointControl(4))):
        check_wiring(chain)


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
    "a stage before transfer carries descriptors over": staged(
        SOURCE, OBSERVE, REFERENCE, Stage("carry", "frame", (DESCRIPTORS,), (CARRIED,)),
        *changed("generator", (CARRIED,)).stages[3:],
    ),
    "transfer passes on more than motion": changed("transfer", made=(tensor("more", MOST + 1),)),
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


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (retyped("generator", "deformation", shape=(1, 64, 64, 2)), "[1, 64, 64, 2]"),
        (retyped("generator", "deformation", dtype="float16"), "float32 [1, 32, 32, 2]"),
        (retyped("generator", "frame", shape=(1, 3, 64, 64)), "uint8 [1, 1, 64, 64]"),
        (retyped("motion", "deformation", name="source_feature"), "'source_feature'"),
        (retyped("motion", "deformation", name="scale"), "'scale'"),
        (retyped("source", "source_image", dtype="float32"), "expected uint8"),
        (retyped("transfer", "scale", shape=(2,)), "expected float32 [1]"),
        (retyped("transfer", "reference_descriptors", name="reference_x"), "'reference_x'"),
        (retyped("transfer", "next_state", shape=(1, 3)), "'state'"),
        (retyped("transfer", "next_state", name="later"), "'next_state' -> 'state'"),
        (changed("generator", (FEATURE,)), "twice"),
        # Roles and their order
        (staged(OBSERVE, SOURCE, REFERENCE, TRANSFER, MOTION, GENERATOR), "order"),
        (staged(SOURCE, REFERENCE, OBSERVE, TRANSFER, MOTION, GENERATOR), "order"),
        (staged(SOURCE, OBSERVE, REFERENCE, TRANSFER, MOTION, MOTION, GENERATOR), "one name"),
        (staged(SOURCE, TRANSFER, MOTION, GENERATOR), "`observe`"),
        (staged(OBSERVE, REFERENCE, TRANSFER, MOTION, GENERATOR), "source"),
        (staged(SOURCE, OBSERVE, replace(OBSERVE, name="b"), TRANSFER, GENERATOR), "once"),
        (staged(SOURCE, OBSERVE, REFERENCE, replace(TRANSFER, name="b"), GENERATOR), "'transfer'"),
        (staged(SOURCE, OBSERVE, REFERENCE, TRANSFER), "last"),
        # What carries the motion
        (replace(MATCHING, control=DisplacementControl(16, 8, 4, 4)), "'displacement'"),
        (replace(MATCHING, control=DisplacementControl(8, 8, 8, 8)), "'shading'"),
        (replace(MATCHING, control=DisplacementControl(8, 8, 4, 4, ("one",))), "landmarks"),
        (replace(MATCHING, control=KeypointControl(3)), "'driving_kp_value'"),
        (replace(POINTS, control=KeypointControl(3)), "float32 [1, 3, 2]"),
        (changed("transfer", made=(tensor("confidence", 1, 1, 8, 4),)), "'confidence'"),
        (changed("motion", made=(tensor("confidence", 1, 1, 8, 8),)), "'confidence'"),
        (changed("transfer", made=(tensor("quality", 1, 5),)), "'quality'"),
        (staged(SOURCE, OBSERVE, NO_REFERENCE, MOTION, GENERATOR), "reference"),
        # Controls
        (controlled("relative", changed("transfer", (tensor("relative", 1),))), "relative"),
        (controlled("driving_frame"), "taken"),
        (controlled("source_image"), "taken"),
        (controlled("state"), "taken"),
        (controlled("shading"), "exists"),
        (controlled("idle"), "'idle'"),
        (controlled("reference_x", changed("transfer", (tensor("reference_x", 1),))), "taken"),
        # Layers
        (layered(gain="nothing"), "gain"),
        (layered(stiff="gate"), "stiff"),
        (layered(gate="layer_deformation"), "gate"),
        (layered(offset="scalar"), "offset"),
    ],
)
def test_wiring_that_does_not_close(chain: Chain, words: str) -> None:
    with pytest.raises(BundleError) as caught:
        check_wiring(chain)
    assert words in caught.value.message
