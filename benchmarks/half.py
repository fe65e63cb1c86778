"""A half-precision bundle beside its float32 one, on the CPU: the golden frame, then whole clips.

    python -m sonomime.benchmarks.half HALF_BUNDLE --clips ../shared/data/test -o half.json

Both bundles animate the same frames, each clip's own first frame the source, relative motion with
smoothing. Frames are compared in dB; every float tensor of the half bundle is looked at for what is
not finite. ONNX Runtime's CPU computes half convolutions in float32 where it has no kernel of
its own, and rounds between the nodes; a GPU accumulates otherwise, so this is no word on a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..runtime.animator import Animator
from ..runtime.bundle.bundle import Bundle
from ..runtime.bundle.manifest import Motion
from ..runtime.media.frames import Image, read_image
from ..runtime.media.pixels import levels_apart, psnr
from ..runtime.media.video import open_source
from ..runtime.pipeline import SAMPLES
from ..runtime.support.atomic_files import atomic_write_text
from ..runtime.support.errors import ConfigError, InputError
from ..runtime.support.progress import progress

CLIPS = {".mp4", ".mkv", ".avi", ".mov", ".gif", ".webm"}
MOST = 120.0  # dB, for equal frames: JSON has no infinity


@dataclass(frozen=True)
class Row:
    """A clip: least and mean dB over its frames, and how many of them had something not finite."""

    clip: str
    frames: int
    least_db: float
    mean_db: float
    levels_apart: int
    not_finite: int


def main() -> None:
    """Compare and print, or write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("half", type=Path, metavar="HALF_BUNDLE")
    parser.add_argument(
        "--bundle", type=Path, metavar="B", help="its float32 one (the default one)"
    )
    parser.add_argument("--clips", type=Path, metavar="FOLDER", help="besides the sample clip")
    parser.add_argument("--frames", type=int, default=20, metavar="N", help="of each clip (20)")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    single, half = Bundle.open(args.bundle), Bundle.open(args.half)
    clips = [SAMPLES / "driving.mp4"]
    if args.clips is not None:
        clips += sorted(p for p in args.clips.rglob("*") if p.suffix.lower() in CLIPS)
    golden, rows = compare(single, half, clips, args.frames, args.threads)
    for row in (golden, *rows):
        print(
            f"{row.clip:<44} {row.frames:4d} frames, least {row.least_db:.1f} dB, mean "
            f"{row.mean_db:.1f} dB, {row.levels_apart} levels, not finite {row.not_finite}"
        )
    if args.output is not None:
        report = {
            "single": single.digest,
            "half": half.digest,
            "golden": asdict(golden),
            "clips": [asdict(row) for row in rows],
            "least_db": min(row.least_db for row in (golden, *rows)),
            "frames": sum(row.frames for row in rows),
            "not_finite": sum(row.not_finite for row in (golden, *rows)),
        }
        atomic_write_text(args.output, json.dumps(report, indent=1) + "\n")


def compare(
    single: Bundle, half: Bundle, clips: Sequence[Path], frames: int, threads: int
) -> tuple[Row, list[Row]]:
    """The golden frame's row (absolute motion), and one per clip.

    Raises:
        ConfigError: the bundles are not of one model, or not of these precisions.
        InputError: a clip cannot be read.
    """
    precisions = (single.manifest.precision, half.manifest.precision)
    if precisions != ("fp32", "fp16") or single.manifest.image != half.manifest.image:
        raise ConfigError(
            f"bundles of {' and '.join(precisions)}, {single.manifest.image.size} and "
            f"{half.manifest.image.size} pixels, are no float32 bundle and its half",
            "export the same checkpoint with --precision fp32 and fp16",
        )
    golden = single.manifest.golden
    source, driving = (read_image(single.folder / g.file) for g in (golden.source, golden.driving))
    with ExitStack() as stack:
        still = [_opened(stack, b, "absolute", False, threads) for b in (single, half)]
        first = _row("golden frame", still, source, [driving])
        moving = [_opened(stack, b, "relative", True, threads) for b in (single, half)]
        rows = []
        for clip in progress(clips, label="clips"):
            with open_source(clip, channels=single.manifest.image.channels) as opened:
                images = [frame.image for frame in itertools.islice(opened, frames)]
            if not images:
                raise InputError(f"{clip} has no frames")
            rows.append(_row(clip.name, moving, images[0], images))
    return first, rows


def _opened(
    stack: ExitStack, bundle: Bundle, motion: Motion, smooth: bool, threads: int
) -> Animator:
    animator = Animator.open(bundle, "ort-cpu", motion, smooth=smooth, threads=threads)
    return stack.enter_context(animator)


def _row(name: str, animators: Sequence[Animator], source: Image, driving: Sequence[Image]) -> Row:
    decibels, apart, broken = [], 0, 0
    for animator in animators:
        animator.reset()
        animator.set_source(source)
    for image in driving:
        single, half = (animator.animate(image) for animator in animators)
        decibels.append(min(psnr(half, single), MOST))
        apart = max(apart, levels_apart(half, single))
        broken += not all(np.isfinite(tensor).all() for tensor in _floats(animators[1]))
    return Row(name, len(driving), min(decibels), float(np.mean(decibels)), apart, broken)


def _floats(animator: Animator) -> Iterator[np.ndarray]:
    tensors = animator.session.chain.tensors().values()
    return (animator.read(tensor.name) for tensor in tensors if tensor.dtype != "uint8")


if __name__ == "__main__":
    main()
