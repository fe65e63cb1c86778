"""The bundle's model in eager torch: as a backend of `sonomime bench`, or beside the runtime."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..runtime.animator import Animator
from ..runtime.bundle.bundle import Bundle
from ..runtime.bundle.manifest import FRAME
from ..runtime.media.frames import Image, letterbox, to_channels
from ..runtime.media.pixels import levels_apart, to_image
from ..runtime.session import Session
from ..runtime.support.errors import ConfigError
from ..training.checkpoint import load_checkpoint
from ..training.config_file import load_config
from ..training.models.base import Model
from ..training.models.families import family_of
from ..training.torch_backend import TorchBackend
from .measure import seconds_of, summarise

BLOCKS = 8  # of the comparison


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


def open_torch(bundle: Bundle, checkpoint: Path | None, threads: int) -> Animator:
    """The model in torch, on the first GPU that torch sees, or else on the CPU. A bundle holds no
    weights that torch could load: without a checkpoint they are untrained, which changes no time.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ConfigError: no checkpoint, and no preset of the bundle's name.
    """
    torch.set_num_threads(threads)
    manifest = bundle.manifest
    size, channels, geometry = manifest.image.size, manifest.image.channels, manifest.geometry
    sizes = f"image_size={size}", f"channels={channels}", f"geometry={geometry}"
    try:
        model = model_of(checkpoint, manifest.preset, *(f"model.{each}" for each in sizes))
    except ConfigError as error:
        raise ConfigError(
            f"bundle {manifest.name!r} does not say how its model is built: {error.message}",
            "give its checkpoint: --torch CHECKPOINT",
        ) from error
    chain = family_of(model.config).chain(model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Animator(Session(chain, TorchBackend(chain, device)))


def compare_with_torch(
    bundle: Bundle, checkpoint: Path, threads: int, source: Image, driving: list[Image], frames: int
) -> dict[str, Any]:
    """Time the runtime and eager torch in turns, so that other work slows both alike.

    Args:
        bundle: the bundle exported from `checkpoint`.
        driving: driving frames, repeated as needed.
        frames: frames of each side.

    Returns:
        Plain data: summaries of both in ms, torch / runtime as the median of the blocks' ratios and
        their range, and the largest difference of the frames in grey levels.

    Raises:
        CheckpointError: the checkpoint cannot be used.
    """
    torch.set_num_threads(threads)
    model = load_checkpoint(checkpoint).model()
    oracle = family_of(model.config).oracle(model)
    image = bundle.manifest.image

    def fit(frame: Image) -> Image:
        return letterbox(to_channels(frame, image.channels), image.size)[0]

    def eager(frame: Image) -> Image:
        return to_image(oracle.animate(fit(frame))[FRAME])

    def block(animate: Callable[[Image], Image]) -> list[float]:
        animate(driving[0])  # the other side has just used the threads and caches
        given = itertools.cycle(driving)
        return seconds_of(lambda: animate(next(given)), max(2, frames // BLOCKS))

    with Animator.open(bundle, "ort-cpu", threads=threads) as animator:
        animator.set_source(source)
        oracle.set_source(fit(source), fit(driving[0]))
        # The first frame becomes the reference of both; this warms both up.
        apart = max(levels_apart(animator.animate(frame), eager(frame)) for frame in driving[:8])
        pairs = [(block(animator.animate), block(eager)) for _ in range(BLOCKS)]
    ratios = [median(theirs) / median(ours) for ours, theirs in pairs]
    ours, theirs = (list(itertools.chain(*side)) for side in zip(*pairs, strict=True))
    return {
        "runtime": summarise(ours),
        "torch": summarise(theirs),
        "ratio": median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "blocks": BLOCKS,
        "levels_apart": apart,
        "checkpoint": checkpoint.name,
    }
