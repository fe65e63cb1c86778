"""Manifest checks that field types cannot express, mainly stage wiring.

Stages are wired by the names of their tensors. An input is the output of an earlier stage, an
image, the alignment, a control, a recurrent state, or `reference_X`: the output of a `reference`
stage, else a copy of what stage `observe` made as `driving_X` of the reference frame.

The leak rule: the picture may follow the driving frame's motion but must not show its anatomy. So
only `observe` reads the driving frame, only `transfer` reads what `observe` and `reference` stages
make of it, and `transfer` passes on few numbers (`most_numbers`). This limits what can pass;
`sonomime evaluate` measures what does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from typing import Any

from ..support.dataclass_parser import plain
from ..support.errors import BundleError
from ..support.printable import printable
from ..support.table import NAME_HINT, is_name
from .manifest import (
    ALIGNMENT,
    CONFIDENCE,
    DRIVING,
    DRIVING_FRAME,
    FRAME,
    LANDMARK_IMAGE,
    LANDMARKS,
    MANIFEST,
    QUALITY,
    REFERENCE,
    SOURCE_IMAGE,
    TRANSFER,
    Chain,
    DisplacementControl,
    KeypointControl,
    Manifest,
    Role,
    Stage,
    Tensor,
)

ROLES: tuple[Role, ...] = ("landmarks", "source", "observe", "reference", "frame")
"""In the order in which stages are listed."""

MAX_ELEMENTS = 1 << 28  # of one tensor: 1 GiB of float32
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}", re.ASCII)
_TENSOR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

Kind = tuple[str, tuple[int, ...]]
Takers = tuple[str, ...]
"""Roles whose stages may take a tensor. `transfer` counts as a role of its own here."""

_TAKERS: dict[str, Takers] = {
    "landmarks": (),
    "source": ("source", "reference", "frame", TRANSFER),
    "observe": ("reference", TRANSFER),
    "reference": (TRANSFER,),
    "frame": ("frame", TRANSFER),
    TRANSFER: ("frame",),
}
"""Who may take what stages of a role make."""

_PREFIXES = {"observe": DRIVING, "reference": REFERENCE}
_LEAK = "refused: the driving anatomy could get into the picture"
_RESERVED = (SOURCE_IMAGE, LANDMARK_IMAGE, ALIGNMENT, FRAME)


def most_numbers(size: int) -> int:
    """How many numbers `transfer` may pass on per frame, its states aside: one for each 16 pixels
    of a square picture of that size, at most 4,096."""
    return min(4096, size * size // 16)


def check_values(manifest: Manifest) -> None:
    """Check ranges, texts, file names, digests and tensor names.

    Raises:
        BundleError: naming the value.
    """
    for text in _texts(plain(manifest)):
        harmless = printable(text) == text and "\n" not in text
        _need(harmless, f"the text {text[:100]!a} has control characters")
    _need(16 <= manifest.image.size <= 4096, "image.size: expected 16 to 4096")
    control = manifest.control
    if isinstance(control, DisplacementControl):
        has_cells = min(control.grid_height, control.grid_width) >= 1
        _need(has_cells, "control: a grid has at least one row and one column")
        low, high = sorted((control.shading_height, control.shading_width))
        _need(low > 0 or low == high == 0, "control: a shading has rows and columns, or neither")
        names = [*control.landmarks]
    else:
        _need(1 <= control.count <= 1000, "control.count: expected 1 to 1000")
        for i, point in enumerate(control.supervised):
            there = 0 <= point.index < control.count
            _need(there, f"control.supervised[{i}].index: there is no such keypoint")
        names = [point.name for point in control.supervised]
    for name in names:
        _need(is_name(name), f"control: {name[:40]!r} cannot be a name", NAME_HINT)
    letters = "a name has letters, digits and underscores only"
    for i, each in enumerate(manifest.controls):
        _need(_TENSOR_NAME.fullmatch(each.name), f"controls[{i}].name: {letters}")
        inside = each.range[0] <= each.default <= each.range[1]
        _need(inside, f"controls[{i}]: the default is outside of the range")
    seen: dict[str, str] = {}
    for file, sha256 in manifest.digests():
        is_plain = _FILE_NAME.fullmatch(file) and file != MANIFEST
        _need(is_plain, f"{file[:100]!a} is not a plain file name", "no folders, no `..`")
        _need(_SHA256.fullmatch(sha256), f"{file}: sha256 is not 64 lower-case hexadecimal digits")
        same = seen.setdefault(file, sha256) == sha256
        _need(same, f"{file}: named twice with different digests")
    for i, stage in enumerate(manifest.stages):
        for tensor in (*stage.inputs, *stage.outputs):
            where = f"stages[{i}] ({stage.name[:40]}), tensor {tensor.name[:40]!r}"
            _need(_TENSOR_NAME.fullmatch(tensor.name), f"{where}: {letters}")
            shape = tensor.shape
            possible = len(shape) <= 8 and min(shape, default=1) >= 1
            possible = possible and prod(shape) <= MAX_ELEMENTS
            _need(possible, f"{where}: impossible shape {list(shape)[:8]}")
    limits = manifest.tolerances
    limited = limits.frame_levels is not None or limits.psnr_db is not None
    _need(limited, "tolerances: frame_levels or psnr_db must be given")
    can_move = manifest.golden.motion in manifest.motions()
    _need(can_move, "golden.motion: the stages cannot make this motion")


def _texts(data: Any) -> Iterator[str]:
    """Every text in plain data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for each in data.values() if isinstance(data, dict) else data:
            yield from _texts(each)


def check_wiring(chain: Chain) -> None:
    """Check roles, order, names, shapes and dtypes of the whole chain, and the leak rule.

    Raises:
        BundleError: naming the stage and the tensor.
    """
    _check_roles(chain)
    states = {pair.to: pair.from_ for pair in chain.recurrent}
    controls = [control.name for control in chain.controls]
    names = [*(pair.to for pair in chain.recurrent), *controls]
    for name in names:
        taken = name in _RESERVED or name.startswith((DRIVING, REFERENCE)) or names.count(name) > 1
        _need(not taken, f"a control or state cannot be called {name!r}: the name is taken")
    image = _image(chain)
    known: dict[str, tuple[Kind | None, Takers]] = {
        SOURCE_IMAGE: (image, ("source",)),
        DRIVING_FRAME: (image, ("observe",)),
        LANDMARK_IMAGE: (image, ("landmarks",)),
    }
    known |= {name: (("float32", (1,)), ("frame", TRANSFER)) for name in controls}
    known |= {name: (None, (TRANSFER,)) for name in states}
    if isinstance(chain.control, DisplacementControl):
        grid = chain.control.grid_height, chain.control.grid_width
        known[ALIGNMENT] = ("float32", (1, *grid, 2)), (TRANSFER,)
    copies = dict(chain.copied_references())
    for stage in chain.stages:
        what = f"stage {stage.name!r}"
        seat = TRANSFER if stage.name == TRANSFER else stage.role
        different = len({tensor.name for tensor in stage.inputs}) == len(stage.inputs)
        _need(different, f"{what} takes one input twice")
        for tensor in stage.inputs:
            _need(
                tensor.name in known,
                f"{what}: nothing makes its input {tensor.name!r}",
                "an input is an earlier output, an image, a control, a reference or a state",
            )
            kind, takers = known[tensor.name]
            allowed = " or ".join(takers) or "no other stage"
            _need(seat in takers, f"{what} takes {tensor.name!r}, which is for {allowed}", _LEAK)
            if kind is not None:
                _must_be(stage, tensor, kind)
        wanted = _PREFIXES.get(stage.role, "")
        others = tuple(prefix for prefix in _PREFIXES.values() if prefix != wanted)
        for tensor in stage.outputs:
            name = tensor.name
            _need(name not in known, f"{what} makes {name!r}, which exists")
            # What observe and reference stages make, and nothing else, carries their prefix.
            prefix = f"must begin with {wanted!r}" if wanted else "has the prefix of another role"
            right = name.startswith(wanted) and not name.startswith(others)
            _need(right, f"output {name!r} of {what} {prefix}")
            kind = tensor.dtype, tensor.shape
            known[name] = kind, () if name in states.values() else _TAKERS[seat]
            if name in copies:
                known[copies[name]] = kind, (TRANSFER,)
    taken_names = {tensor.name for stage in chain.stages for tensor in stage.inputs}
    for name in controls:
        _need(name in taken_names, f"no stage takes the control {name!r}")
    transfer = next(stage for stage in chain.stages if stage.name == TRANSFER)
    _check_transfer(chain, transfer, states)
    for maker, name, kind in _wanted(chain, transfer):
        made = chain.tensors()
        if maker is not None:
            made = {tensor.name: tensor for tensor in maker.outputs}
            _need(name in made, f"stage {maker.name!r} does not make {name!r}")
        if name in made:
            _must_be(maker, made[name], kind)
    _check_layers(chain)


def _check_roles(chain: Chain) -> None:
    names = [stage.name for stage in chain.stages]
    _need(len(set(names)) == len(names), "two stages have one name")
    roles = [stage.role for stage in chain.stages]
    once = roles.count("observe") == 1 >= max(roles.count("reference"), roles.count("landmarks"))
    _need(
        once and "source" in roles and roles == sorted(roles, key=ROLES.index),
        f"a bundle has stages of the roles {', '.join(ROLES)}, in this order: `observe` once, "
        f"`reference` and `landmarks` at most once; this one has {', '.join(roles)}",
        "export it again",
    )
    moved = TRANSFER in [stage.name for stage in chain.of_role("frame")]
    _need(moved, f"there is no stage {TRANSFER!r} of role `frame`", "export it again")
    _need(
        names[-1] != TRANSFER,
        f"{TRANSFER!r} is the last stage: nothing makes a picture of the motion",
    )
    (observe,) = chain.of_role("observe")
    alone = [tensor.name for tensor in observe.inputs] == [DRIVING_FRAME]
    _need(alone, f"stage {observe.name!r} must take {DRIVING_FRAME!r} alone")


def _check_transfer(chain: Chain, transfer: Stage, states: dict[str, str]) -> None:
    made = {tensor.name: tensor for tensor in transfer.outputs}
    taken = {tensor.name: tensor for tensor in transfer.inputs}
    for to, from_ in states.items():
        own = from_ in made and to in taken
        _need(own, f"recurrent state {from_!r} -> {to!r} is not one of {TRANSFER!r}")
        _must_be(transfer, taken[to], (made[from_].dtype, made[from_].shape))
    passed = sum(prod(t.shape) for t in transfer.outputs if t.name not in states.values())
    allowed = most_numbers(chain.image.size)
    what = f"stage {TRANSFER!r} passes on {passed} numbers a frame, {allowed} are allowed"
    _need(passed <= allowed, what, _LEAK)


def _wanted(chain: Chain, transfer: Stage) -> Iterator[tuple[Stage | None, str, Kind]]:
    """The tensors whose meaning is fixed: which stage has to make each, None where one may."""
    control = chain.control
    yield chain.stages[-1], FRAME, _image(chain)
    yield None, QUALITY, ("float32", (1, 4))
    if isinstance(control, KeypointControl):
        points: Kind = ("float32", (1, control.count, 2))
        yield chain.of_role("observe")[0], DRIVING + "kp_value", points
        yield None, "source_kp_value", points
        return
    names, finders = control.landmarks, chain.of_role("landmarks")
    _need(
        bool(names) == bool(finders) and len(set(names)) == len(names),
        f"control.landmarks names {len(names)} landmarks, {len(finders)} stages find any",
    )
    for finder in finders:
        yield finder, LANDMARKS, ("float32", (1, len(names), 3))
    rows, columns = control.grid_height, control.grid_width
    yield transfer, "displacement", ("float32", (1, rows, columns, 2))
    if CONFIDENCE in chain.tensors():
        yield transfer, CONFIDENCE, ("float32", (1, 1, rows, columns))
    if control.shading_height:
        shape = (1, 1, control.shading_height, control.shading_width)
        yield transfer, "shading", ("float32", shape)
    _need(
        chain.motions() == ("relative",),
        "displacements are relative to a reference: a stage must take one, and there can be no "
        "control `relative`",
    )


def _check_layers(chain: Chain) -> None:
    made = {t.name: t for stage in chain.of_role("frame") for t in stage.outputs}
    for layer, name in vars(chain.layers).items() if chain.layers is not None else ():
        of_places = layer in ("deformation", "stiff")
        depth, allowed = (3, (2,)) if of_places else (1, (1, chain.image.channels))
        tensor = made.get(name)
        _need(
            tensor
            and (tensor.dtype, len(tensor.shape), tensor.shape[:1]) == ("float32", 4, (1,))
            and tensor.shape[depth] in allowed,
            f"layers.{layer}: no stage makes {name!r} of every frame in a layer's shape",
        )


def _image(chain: Chain) -> Kind:
    return "uint8", (1, chain.image.channels, chain.image.size, chain.image.size)


def _must_be(stage: Stage | None, tensor: Tensor, expected: Kind) -> None:
    dtype, shape = expected
    _need(
        (tensor.dtype, tensor.shape) == expected,
        (f"stage {stage.name!r}: " if stage else "")
        + f"{tensor.name!r} is {tensor.dtype} {list(tensor.shape)}, expected {dtype} {list(shape)}",
    )


def _need(holds: object, message: str, hint: str = "") -> None:
    if not holds:
        raise BundleError(message, hint)
