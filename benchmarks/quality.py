"""What a bundle says of its own frames: the numbers that runtime/quality.py has thresholds for.

    python -m sonomime.benchmarks.quality CLIPS --bundle B

Each clip is matched with its own first frame; so are the frames of another clip (a cut), a black
one and noise. The source makes no difference to the numbers, so each clip drives itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..runtime.animator import Animator
from ..runtime.media.frames import Image
from ..runtime.media.video import open_source
from ..runtime.quality import Quality
from ..runtime.support.errors import ConfigError, InputError, UnsupportedFormat

QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
NUMBERS = ("confidence", "displacement", "folded", "unseen")


def qualities(animator: Animator, first: Image, frames: Iterable[Image]) -> list[Quality]:
    """How each frame went, after a first one that is source and reference too.

    Raises:
        ConfigError: the model does not say.
    """
    animator.reset()
    animator.set_source(first)
    animator.set_reference(first)
    found = []
    for frame in frames:
        animator.animate(frame)
        if (quality := animator.quality) is None:
            raise ConfigError("this bundle does not say how its frames went", "choose another one")
        found.append(quality)
    return found


def spread(path: Path, count: int) -> list[Image]:
    """So many frames of a clip, evenly; all, if it has fewer."""
    with open_source(path, channels=1) as source:
        total = sum(1 for _ in source)
        wanted = set(np.linspace(0, total - 1, min(count, total)).astype(int).tolist())
        return [frame.image for frame in source if frame.index in wanted]


def cases(
    clips: Sequence[list[Image]],
) -> Iterator[tuple[str, float, Image, list[Image]]]:
    """What is tried: its name, scale, first frame and the others."""
    for scale in (1.0, 2.0, 4.0):
        for clip in clips:
            yield f"the same clip, scale {scale:g}", scale, clip[0], clip[1:]
    for index, clip in enumerate(clips):
        # Half the list away, for neighbours in a folder look alike.
        other = clips[(index + len(clips) // 2) % len(clips)]
        noise = np.random.default_rng(0).integers(0, 256, clip[0].shape, np.uint8)
        yield "a cut to another clip", 1.0, clip[0], other
        yield "black", 1.0, clip[0], [np.zeros_like(clip[0])]
        yield "noise", 1.0, clip[0], [noise]


def report(name: str, frames: Sequence[Quality]) -> str:
    """Quantiles of the numbers and the share of doubtful frames, as text."""
    doubtful = [frame.reason for frame in frames if frame.reason]
    lines = [f"{name}: {len(doubtful)} of {len(frames)} doubtful"]
    lines += [f"  {reason}: {doubtful.count(reason)}" for reason in dict.fromkeys(doubtful)]
    for number in NUMBERS:
        values = np.quantile([getattr(frame, number) for frame in frames], QUANTILES)
        lines.append(f"  {number:<13}" + " ".join(f"{value:6.3f}" for value in values))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the numbers of every clip in a folder, by case."""
    parser = argparse.ArgumentParser(description="what a bundle says of its own frames")
    parser.add_argument("clips", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--every", type=int, default=2, help="clip of the folder (2)")
    parser.add_argument("--frames", type=int, default=8, help="of each clip (8)")
    args = parser.parse_args(argv)
    clips = []
    for path in sorted(args.clips.iterdir())[:: args.every]:
        try:
            clips.append(spread(path, args.frames))
        except UnsupportedFormat as error:
            print(f"left out: {error.message}")
    if len(clips) < 2:
        raise InputError(f"{args.clips} has {len(clips)} readable clips", "a cut takes two")
    found: dict[str, list[Quality]] = {}
    with Animator.open(args.bundle, backend="cpu") as animator:
        for name, scale, first, others in cases(clips):
            animator.session.set_control("scale", scale)
            found.setdefault(name, []).extend(qualities(animator, first, others))
    print("quantiles: " + " ".join(f"{quantile:g}" for quantile in QUANTILES))
    for name, frames in found.items():
        print(report(name, frames))


if __name__ == "__main__":
    main()
