"""One subject of a phantom folder: its parameters, its clip and the truth about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtime.support.errors import InputError
from .anatomies import ANATOMIES
from .arrays import FloatArray
from .body import Body, why_impossible
from .probe import pixel_grid
from .render import Renderer

_GRAIN = 512  # displacements are kept to 1/512 px, which halves their files
_TRIES = 200
CHECKED_STATES = 33
"""States checked along a manoeuvre, however many frames the clip has."""
_USUAL_FRAMES = 60  # a manoeuvre's, at the scanner's frame rate


@dataclass(frozen=True)
class Identity:
    """Which subject: a drawn one follows from this alone."""

    anatomy: str
    seed: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.anatomy}{self.seed}-{self.number:03d}"

    @property
    def split(self) -> str:
        """Every fifth is for testing, every tenth for choosing between runs."""
        if self.number % 5 == 4:
            return "test"
        return "val" if self.number % 10 == 7 else "train"

    def stream(self, use: int) -> list[int]:
        """The seed of one of this subject's random streams."""
        return [self.seed, self.number, use]


class Shot(NamedTuple):
    """One frame: uint8 (SIZE, SIZE), and displacement float32 (SIZE, SIZE, 2) to the rest pose,
    pixels."""

    image: NDArray[np.uint8]
    displacement: NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """One subject.

    Attributes:
        name: of its files.
        identity: what its speckle and noise follow from, and the split it is in.
        parameters: of its anatomy's type.
    """

    name: str
    identity: Identity
    parameters: Any

    @property
    def body(self) -> Body:
        return ANATOMIES[self.identity.anatomy].body(self.parameters)


def draw_subject(identity: Identity) -> Subject:
    """The subject of that identity, drawn again until its landmarks stay in the sector.

    Raises:
        InputError: none of many draws did.
    """
    anatomy = ANATOMIES[identity.anatomy]
    for attempt in range(_TRIES):
        rng = np.random.default_rng([*identity.stream(0), attempt])
        subject = Subject(identity.name, identity, anatomy.draw(rng))
        body = subject.body
        if why_impossible(body, body.states(CHECKED_STATES)) is None:
            return subject
    raise InputError(
        f"no possible {identity.anatomy} subject in {_TRIES} draws", "choose another --seed"
    )


def film(
    body: Body,
    states: FloatArray,
    scatterers: int,
    noise: list[int] | None = None,
    numbers: Sequence[int] | None = None,
) -> Iterator[Shot]:
    """Render a clip's states (T, Q) one after the other.

    Args:
        scatterers: their seed.
        noise: seed of the receiver's noise. None for no noise and no slip out of the plane, as in
            a true prediction.
        numbers: render these frames only, in ascending order. Each must come after the two before
            it, which persist in it.
    """
    renderer = Renderer(body, scatterers)
    slips = body.out_of_plane(len(states)) if noise is not None else np.zeros(len(states))
    grid = pixel_grid()
    greys: list[NDArray[np.float32]] = []
    weights = _persistence(body, len(states))
    for number in range(len(states)) if numbers is None else numbers:
        rng = None if noise is None else np.random.default_rng([*noise, number])
        view = renderer.view(states[number], float(slips[number]), rng)
        greys = [body.display.grey(view.envelope), *greys[:2]]
        shown = sum(w * greys[min(i, len(greys) - 1)] for i, w in enumerate(weights))
        displacement = np.rint((view.rest - grid) * _GRAIN) / _GRAIN
        yield Shot(renderer.convert(shown), displacement.astype(np.float32))


def _persistence(body: Body, frames: int) -> NDArray[np.float32]:
    """Weights of this frame and the two before it: the latter weigh less where few frames show the
    whole manoeuvre, because they are further apart in time."""
    weights = np.array(body.display.persistence, np.float32)
    weights[1:] *= min(1.0, frames / _USUAL_FRAMES)
    weights[0] = 1 - weights[1:].sum()
    return weights


def landmark_pixels(body: Body, states: FloatArray) -> NDArray[np.float32]:
    """Where the keypoints are, float32 (T, P, 2), pixels."""
    places = np.stack([body.landmarks(state) for state in states])
    return np.asarray(body.probe.to_pixels(places), np.float32)
