"""The plain way to run a model: eager torch in float32 on the CPU, no stages, no rewrites.

It is the oracle that export compares a bundle with. FOMM's is run as FOMM's own demo runs it: the
source is encoded again for every frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..runtime.bundle.bundle import Bundle
from ..runtime.bundle.manifest import FRAME
from ..runtime.media.frames import Image, letterbox, to_channels
from ..runtime.media.pixels import to_image
from ..runtime.support.errors import ConfigError
from ..training.checkpoint import load_checkpoint
from ..training.config_file import load_config
from ..training.models.base import Model, Named, Oracle, normalised
from ..training.models.families import family_of
from ..training.models.keypoints.family import KeypointFamily, KeypointOracle


def model_of(checkpoint: Path | None, preset: str, *overrides: str) -> Model:
    """The model of a checkpoint, else of a preset, untrained.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ConfigError: there is no such preset.
    """
    if checkpoint is not None:
        return load_checkpoint(checkpoint).model()
    config = load_config(preset, overrides)
    torch.manual_seed(0)
    model: Model = family_of(config.model).model(config.model)
    return model.eval()


class Eager:
    """Animates pictures of any size, uint8 (H, W) or (H, W, 3), in a plain loop."""

    def __init__(self, oracle: Oracle, threads: int) -> None:
        """`threads`: of torch, in the whole process."""
        torch.set_num_threads(threads)
        self._oracle, config = oracle, oracle.model.config
        self._size, self._channels = config.image_size, config.channels

    def begin(self, source: Image, reference: Image) -> None:
        """Take a source and the driving frame that motion is relative to."""
        self._oracle.set_source(self._fit(source), self._fit(reference))

    def animate(self, frame: Image) -> Image:
        """The model's frame, uint8 (S, S) or (S, S, 3)."""
        return to_image(self._oracle.animate(self._fit(frame))[FRAME])

    def _fit(self, image: Image) -> Image:
        return letterbox(to_channels(image, self._channels), self._size)[0]


class FommLoop(KeypointOracle):
    """FOMM's own loop: the generator takes the source picture with every frame, so that its encoder
    runs each time, while the source's keypoints are kept."""

    def frame(self, driving: Tensor, given: Sequence[Tensor], state: Tensor) -> Named:
        source = normalised(self._still["source_image"])
        self._source = self.model.encode(source, self._source.keypoints)
        return super().frame(driving, given, state)


def open_eager(bundle: Bundle, checkpoint: Path | None, threads: int) -> Eager:
    """The model of a checkpoint; without one that of the bundle's preset, untrained, since a
    bundle holds no weights that torch could load. That changes the picture and no time.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ConfigError: no checkpoint, and no preset of the bundle's name.
    """
    manifest = bundle.manifest
    try:
        model = model_of(checkpoint, manifest.preset, *_shape(bundle))
    except ConfigError as error:
        raise ConfigError(
            f"bundle {manifest.name!r} does not say how its model is built: {error.message}",
            "give the checkpoint that it was made from: torch@CHECKPOINT",
        ) from error
    return Eager(family_of(model.config).oracle(model), threads)


def open_fomm(bundle: Bundle, threads: int) -> Eager:
    """The untrained preset `fomm` in FOMM's own loop, at the bundle's picture size and channels."""
    size, channels, _ = _shape(bundle)
    return Eager(FommLoop(KeypointFamily(), model_of(None, "fomm", size, channels)), threads)


def _shape(bundle: Bundle) -> tuple[str, str, str]:
    image = bundle.manifest.image
    return (
        f"model.image_size={image.size}",
        f"model.channels={image.channels}",
        f"model.geometry={bundle.manifest.geometry}",
    )
