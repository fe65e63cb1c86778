"""Pictures of predictions: a strip per pair, and all pairs on one page.

The first column is the source with its landmarks; the others are a few driven frames, from the top:
the driving frame, the prediction, the truth, their absolute difference, the deformation. True
landmarks are drawn as +, those that the tracker found in the prediction as o.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .landmarks import Points
from .prediction import PairPictures, PairResult, PairSample
from .strips import (
    TILE,
    Picture,
    as_tile,
    captioned,
    difference_tile,
    in_columns,
    show_deformation,
    title_line,
)
from .text import number

_TRUE = (90, 230, 90)
_TRACKED = (255, 170, 40)
_ARM = 5


def pair_strip(result: PairResult, pictures: PairPictures, geometry: str) -> Picture:
    """The strip of one pair, (H, W, 3) RGB."""
    columns = [[("source, landmarks +", _marked(pictures.source, pictures.start))]]
    for sample in pictures.samples:
        columns.append(
            [
                (f"driving {sample.number}", as_tile(sample.driving)),
                ("prediction, + true, o found", _prediction(sample)),
                ("truth", _marked(sample.truth, sample.true)),
                difference_tile(sample.truth, sample.prediction),
                ("reads in source at", show_deformation(sample.deformation, geometry)),
            ]
        )
    return in_columns(_title(result), columns)


def pair_row(result: PairResult, pictures: PairPictures) -> Picture:
    """One pair in a line: source, then prediction and truth of the middle and the last frame."""
    samples = pictures.samples
    chosen = [samples[len(samples) // 2], samples[-1]] if len(samples) > 1 else samples
    tiles = [("source", _marked(pictures.source, pictures.start))]
    for sample in chosen:
        tiles.append((f"driving {sample.number}", as_tile(sample.driving)))
        tiles.append(("prediction, + true, o found", _prediction(sample)))
        tiles.append(("truth", _marked(sample.truth, sample.true)))
    body = np.concatenate([captioned(tile, caption) for caption, tile in tiles], axis=1)
    return np.concatenate([title_line(_title(result), body.shape[1]), body])


def _title(result: PairResult) -> str:
    return (
        f"{result.pair}   skill {number(result.exact.skill['model'], 2)}  "
        f"landmark error {number(result.exact.landmark_ratio, 2)} of hold's  "
        f"L1 ratio {number(result.methods['model'].l1_ratio, 2)}"
    )


def _prediction(sample: PairSample) -> Picture:
    picture = _marked(sample.prediction, sample.true)
    for x, y in _places(sample.tracked, sample.prediction):
        cv2.circle(picture, (x, y), _ARM, _TRACKED, 1, cv2.LINE_AA)
    return picture


def _marked(image: Picture, points: Points) -> Picture:
    """A tile with points as +."""
    picture = as_tile(image)
    for x, y in _places(points, image):
        cv2.line(picture, (x - _ARM, y), (x + _ARM, y), _TRUE, 1)
        cv2.line(picture, (x, y - _ARM), (x, y + _ARM), _TRUE, 1)
    return picture


def _places(points: Points, image: Picture) -> Sequence[tuple[int, int]]:
    """Pixels of the image as whole pixels of a tile; what is not known or far outside is left."""
    size = np.array([image.shape[1], image.shape[0]])
    places = (points + 0.5) * TILE / size - 0.5
    near = np.isfinite(places).all(axis=1) & (np.abs(np.nan_to_num(places)) < 4 * TILE).all(axis=1)
    return [(round(float(x)), round(float(y))) for x, y in places[near]]
