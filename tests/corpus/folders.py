"""Folders of pictures: which are its frames, in which order, at which times."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .case import GRID, add, grid, held, picture, steps, tiles

MASK = tiles(np.where(GRID > 100, 255, 0).astype(np.uint8))
LOGO = picture(9, 40, 20)


def fill(path: Path, files: Mapping[str, np.ndarray | str]) -> None:
    path.mkdir()
    for name, content in files.items():
        if isinstance(content, str):
            (path / name).write_text(content)
        else:
            Image.fromarray(content).save(path / name)


def numbered(pattern: str, numbers: range | list[int] = range(1, 5)) -> dict[str, np.ndarray]:
    return {pattern.format(number): picture(step) for step, number in enumerate(numbers)}


FRAMES = numbered("f{:03}.png")
TABLE = "frame,seconds\nf001.png,5\nf002.png,5.5\nf003.png,6.5\nf004.png,9\n"
even = np.arange(4) / 30
right = {"levels": steps(4)}

add("frames", partial(fill, files=FRAMES), **right, times=even)
add("fps given", partial(fill, files=FRAMES), **right, times=even * 3, how={"fps": 10})
add("with times", partial(fill, files={**FRAMES, "frames.csv": TABLE}), **right,
    times=[0, 0.5, 1.5, 4])  # fmt: skip
add("natural order", partial(fill, files=numbered("F{}.png", [1, 2, 10, 33])), **right, times=even)
add("a gap", partial(fill, files=numbered("f{:03}.png", [1, 2, 3, 10])), **right)
for end in ("_mask", "_gt", "-label"):
    masks = {f"f{number:03}{end}.png": MASK for number in range(1, 5)}
    add(f"f001 and f001{end}", partial(fill, files=FRAMES | masks), **right)
add("f_001 and f_001_gt", partial(fill, files=numbered("f_{:03}.png")
    | {f"f_{number:03}_gt.png": MASK for number in range(1, 5)}), **right)  # fmt: skip
add("masks first", partial(fill, files=numbered("scan_{}.png")
    | {f"mask_{number}.png": MASK for number in range(1, 4)}), **right)  # fmt: skip
other = {f"a_{number:02}.png": picture(9) for number in range(1, 4)}
add("two series", partial(fill, files=numbered("b_{:02}.png") | other), **right)
add("a logo", partial(fill, files={**FRAMES, "logo.png": LOGO, "poster.jpg": LOGO}), **right)
add("a thumbnail of that size", partial(fill, files={**FRAMES, "cover.png": MASK}), **right)
add("mixed sizes", partial(fill, files={**FRAMES, "f005.png": LOGO}), **right)
add("other files", partial(fill, files={**FRAMES, "notes.txt": "no frame"}), **right)
fading = {"f1.png": held(12), "f2.png": held(12) // 8}  # one range for all
add("12 in 16", partial(fill, files=fading), levels=[GRID, GRID / 8], off=1)
add("one picture", partial(fill, files={"any name.png": picture(2)}), levels=[grid(2)])
