"""How well the ultrasound picture is found on real screens.

    python -m sonomime.benchmarks.region ../shared/data/test docs/results/region.jpg

The column `crop` of its clips.csv has the true boxes. Prints a table, writes a contact sheet.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

from ..runtime.media.frames import Crop, Image, parse_crop
from ..runtime.media.region import Region, find_region
from ..runtime.readers.open_source import open_source
from ..runtime.support.atomic_files import atomic_write_bytes
from ..runtime.support.errors import UnsupportedFormat

FRAMES, TILE, COLUMNS, FOUND, TRUE = 16, (240, 180), 6, (255, 90, 0), (0, 220, 0)


def main() -> None:
    folder, sheet = map(Path, sys.argv[1:])
    tiles = []
    print("| clip | IoU | still | stills >= .9 | shape | share | clutter | uncropped | ms |")
    print("|" + " --- |" * 9)
    rows = (folder / "clips.csv").read_text(encoding="utf-8").splitlines()
    for row in csv.DictReader(rows):
        try:
            images = [frame.image for frame in open_source(folder / row["clip"], channels=3)]
        except UnsupportedFormat:
            continue
        frames = [images[i] for i in np.linspace(0, len(images) - 1, FRAMES).round().astype(int)]
        true = parse_crop(row["crop"]) if row["crop"] else Crop(0, 0, *frames[0].shape[1::-1])
        begin = perf_counter()
        found = find_region(frames)
        ms = 1e3 * (perf_counter() - begin)
        stills = [overlap(find_region([frame]).box, true) for frame in frames]
        name, iou = Path(row["clip"]).stem, overlap(found.box, true)
        good = f"{stills[FRAMES // 2]:.3f} | {sum(still >= 0.9 for still in stills)}/{FRAMES}"
        rest = f"{found.share:.2f} | {found.clutter:.4f} | {'yes' if found.uncropped else 'no'}"
        print(f"| {name} | {iou:.3f} | {good} | {found.shape} | {rest} | {ms:.0f} |")
        tiles.append(tile(frames[FRAMES // 2], found, true, f"{iou:.2f} {name[:33]}"))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    lines = np.vstack([np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)])
    jpeg = cv2.imencode(".jpg", lines[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    atomic_write_bytes(sheet, jpeg.tobytes())


def overlap(one: Crop, other: Crop) -> float:
    """Intersection over union."""
    x = min(one.x + one.w, other.x + other.w) - max(one.x, other.x)
    y = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    both = max(x, 0) * max(y, 0)
    return both / (one.w * one.h + other.w * other.h - both)


def tile(image: Image, region: Region, true: Crop, caption: str) -> Image:
    """The frame with the true box, the found outline and box, and a caption."""
    scale = min(TILE[0] / image.shape[1], TILE[1] / image.shape[0])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture = np.full((TILE[1], TILE[0], 3), 50, np.uint8)
    picture[: small.shape[0], : small.shape[1]] = small
    for box, colour in ((true, TRUE), (region.box, FOUND)):
        corners = np.array([(box.x, box.y), (box.x + box.w, box.y + box.h)]) * scale
        (left, top), (right, bottom) = corners.astype(int).tolist()
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), colour, 1)
    cv2.polylines(picture, [(region.outline * scale).astype(np.int32)], True, FOUND, 1)
    cv2.putText(picture, caption, (2, TILE[1] - 4), 0, 0.33, TRUE, 1, cv2.LINE_AA)
    return picture


if __name__ == "__main__":
    main()
