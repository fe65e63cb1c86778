"""Networks look at every frame of a run, and what they see is kept for distances between sets.

Pictures are seen as grey (their luma), repeated to three channels where a network wants colour.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .loop import Picture
from .metrics import finite_mean
from .networks.catalogue import Network
from .networks.squeezenet import motion_features

Rows = NDArray[np.floating]

TRUTH = "truth"
WINDOW = 16
"""Frames of a window. Windows do not overlap; what is left at a clip's end is not used."""


class Sample(NamedTuple):
    """Features (N, D), and the clip or pair that each row comes from (N,)."""

    rows: Rows
    units: NDArray[np.int64]

    def of(self, units: NDArray[np.int64]) -> Rows:
        """The rows of these units."""
        return self.rows[np.isin(self.units, units)]


Features: TypeAlias = Mapping[int, Mapping[str, Sequence[Rows]]]
"""What one network keeps of a clip or pair: (D,) features, by length (see `Kept`) and method."""


class Kept(NamedTuple):
    """Features that a network made of single frames (length 1) or of windows."""

    network: Network
    length: int
    samples: Mapping[str, Sample]  # by method; TRUTH has the real ones


class Viewer:
    """Show it the pictures of each frame (`see`), and end each clip or pair (`end`).

    Frames are seen one by one: memory holds a few pictures, and the features of all. Workers have
    viewers of their own, one for each clip or pair.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = networks
        self._eyes = [_Eye(network) for network in networks]
        self._units = 0  # clips or pairs that have ended

    @torch.inference_mode()
    def see(self, pictures: Mapping[str, Picture]) -> None:
        """The pictures of a frame, (S, S) uint8, by method; TRUTH is the real one, where known."""
        for eye in self._eyes:
            eye.look(pictures, self._units)

    def end(self) -> dict[str, dict[str, float]]:
        """End a clip or pair.

        Returns:
            by method and measure, the perceptual distances, means over its frames.
        """
        self._units += 1
        found: dict[str, dict[str, float]] = {}
        for eye in self._eyes:
            for method, values in eye.close().items():
                found.setdefault(method, {})[eye.network.kind.pair] = finite_mean(values)
        return found

    def taken(self) -> list[Features]:
        """The features of all that was seen, by network, for another viewer to `add`."""
        return [
            {
                length: {method: [row.numpy() for _, row in rows] for method, rows in kept.items()}
                for length, kept in eye.features.items()
            }
            for eye in self._eyes
        ]

    def add(self, taken: Sequence[Features]) -> None:
        """Take over what a viewer with the same networks has seen of one more clip or pair."""
        for eye, features in zip(self._eyes, taken, strict=True):
            for length, kept in features.items():
                for method, rows in kept.items():
                    for row in rows:
                        eye.keep(length, method, self._units, torch.from_numpy(row))
        self._units += 1

    def kept(self) -> Iterator[Kept]:
        """The features of all clips or pairs."""
        for eye in self._eyes:
            for length, features in eye.features.items():
                samples = {method: _sample(rows) for method, rows in features.items()}
                yield Kept(eye.network, length, samples)


def _sample(rows: Sequence[tuple[int, Tensor]]) -> Sample:
    units, features = zip(*rows, strict=True)
    return Sample(torch.stack(features).numpy(), np.array(units))


class _Eye:
    """One network, what it made of the last pictures, and the features that are kept."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.place = next(network.module.parameters()).device
        self.last: dict[str, tuple[Picture, Any]] = {}  # by method: a picture and its output
        self.window: defaultdict[str, list[Tensor]] = defaultdict(list)
        self.still: dict[str, tuple[Tensor, Tensor]] = {}  # of a window of one output: its features
        self.pairs: defaultdict[str, list[float]] = defaultdict(list)
        # By length and method: the unit and its features.
        self.features: dict[int, defaultdict[str, list[tuple[int, Tensor]]]] = {}

    def look(self, pictures: Mapping[str, Picture], unit: int) -> None:
        """See the pictures of a frame of a unit."""
        kind = self.network.kind
        if kind.pair and not (TRUTH in pictures and len(pictures) > 1):  # nothing to compare
            return
        outputs = self._outputs(pictures)
        for method, output in outputs.items():
            if kind.pair and method != TRUTH:
                distance = self.network.module.distance(output, outputs[TRUTH])
                self.pairs[method].append(float(distance))
            if kind.frechet:
                self.keep(1, method, unit, output)
            if kind.windows:
                window = self.window[method]
                window.append(output)
                if len(window) == WINDOW:
                    self.keep(WINDOW, method, unit, self._of_window(method, window))
                    window.clear()

    def close(self) -> dict[str, list[float]]:
        """End a unit; the perceptual distances of its frames, by method."""
        found, self.pairs = self.pairs, defaultdict(list)
        for held in (self.last, self.window, self.still):
            held.clear()
        return found

    def keep(self, length: int, method: str, unit: int, features: Tensor) -> None:
        self.features.setdefault(length, defaultdict(list))[method].append((unit, features))

    def _outputs(self, pictures: Mapping[str, Picture]) -> dict[str, Any]:
        """What the network makes of each picture; of one that did not change, what it made."""
        new = {
            method: np.array(picture)
            for method, picture in pictures.items()
            if method not in self.last or not np.array_equal(picture, self.last[method][0])
        }
        if new:
            images = torch.from_numpy(np.stack(list(new.values()))).to(self.place)[:, None] / 255
            for (method, picture), output in zip(new.items(), self._made(images), strict=True):
                self.last[method] = picture, output
        return {method: self.last[method][1] for method in pictures}

    def _made(self, images: Tensor) -> Sequence[Any]:
        """Of each of the images (B, 1, S, S)."""
        kind, module = self.network.kind, self.network.module
        if kind.pair:
            layers = module(images)
            return [[layer[i : i + 1] for layer in layers] for i in range(len(images))]
        return module(images).cpu() if kind.frechet else images

    def _of_window(self, method: str, window: Sequence[Tensor]) -> Tensor:
        still = all(output is window[0] for output in window)
        if still and method in self.still and self.still[method][0] is window[0]:
            return self.still[method][1]
        frames = torch.stack(list(window))
        if self.network.kind.frechet:
            features = motion_features(frames)
        else:
            features = self.network.module(frames[None])[0].cpu()
        if still:
            self.still[method] = window[0], features
        return features
