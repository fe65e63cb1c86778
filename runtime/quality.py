"""Whether a frame can be trusted, judged by what the model says about its own motion.

The numbers come from the graph (`QUALITY` in bundle/manifest.py). They show that a frame cannot be
right; they cannot show that it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .bundle.manifest import QUALITY
from .media.frames import Letterbox
from .session import Session, centres

Reason = Literal["", "unsure", "far", "folded", "unseen"]

# Chosen on the test clips (docs/results/README.md) and by eye. Confidence is 1 / (1 + the expected
# error in pixels of 256), averaged over the picture: 1/6 is 5 px. With the default bundle it is .01
# to .09 after a cut to another organ, at most .05 for a black frame, .17 for noise; within a scene
# .18 to .31 in half of the frames, below 1/6 in a fifth. Bars beside a wide picture count as sure,
# which hides noise between them.
UNSURE_BELOW = 1 / 6
# Unscaled motion stays below .24 of the square's side, 1 % folded and 17 % from outside in 95 % of
# the frames (3 % from outside in three quarters). With motion two to four times as large, pictures
# are swirled or torn beyond these limits.
FAR_ABOVE = 0.25
FOLDED_ABOVE = 0.1
UNSEEN_ABOVE = 0.1

_WORDS: dict[Reason, tuple[str, tuple[str, ...]]] = {
    "unsure": ("unlike the reference", ("--reference best", "one scene per clip")),
    "far": ("too far from the reference", ("--reference best", "a smaller --scale")),
    "folded": ("the motion folds the picture", ("a smaller --scale", "--landmarks")),
    "unseen": ("reaching outside the source", ("a smaller --scale", "--landmarks")),
}
"""Words for a reason, and what may help, in the order of `judge`."""


@dataclass(frozen=True)
class Quality:
    """How a frame went: mean confidence in [0, 1]; longest displacement as a share of the
    square's side; share of the square that folds; share of the picture that the source does not
    show; and why the frame is doubtful, "" if it is not."""

    confidence: float
    displacement: float
    folded: float
    unseen: float
    reason: Reason

    @property
    def state(self) -> Literal["good", "doubtful"]:
        return "doubtful" if self.reason else "good"

    @property
    def why(self) -> str:
        """The reason in words, "" if it is not doubtful."""
        return _WORDS[self.reason][0] if self.reason else ""


def judge_frame(session: Session, box: Letterbox) -> Quality | None:
    """Judge a session's last frame; None if its model does not say.

    `box` is the source's. The graph does not know the bars beside a picture, so with layers the
    unseen share is counted here.
    """
    chain = session.chain
    if not session.judges:
        return None
    numbers = session.read(QUALITY)
    if chain.layers is not None:
        numbers[0, 3] = unseen(session.read(chain.layers.deformation), box)
    return judge(numbers)


def unseen(deformation: NDArray[np.float32], box: Letterbox) -> float:
    """The share of a picture in this box that (1, h, w, 2) points read from beside it."""
    import cv2

    cells, low, high = _picture_of(deformation.shape[1:3], box)
    seen = cv2.inRange(deformation[0], low, high)[cells]  # NaN is not
    return 1 - float(np.count_nonzero(seen)) / seen.size if seen.size else 0.0


@lru_cache(maxsize=16)
def _picture_of(shape: tuple[int, int], box: Letterbox) -> tuple[Any, Any, Any]:
    """The cells of a grid (rows, columns) within a picture, and the picture's corners, (x, y) each;
    half a pixel outside does not count."""
    middle = np.array([2 * box.x + box.w, 2 * box.y + box.h], np.float32) / box.size - 1
    half = np.array([box.w, box.h], np.float32) / box.size
    rows, columns = shape
    y = np.abs(centres(rows) - middle[1]) <= half[1]
    x = np.abs(centres(columns) - middle[0]) <= half[0]
    half = half + np.float32(1 / box.size)
    return np.ix_(y, x), tuple((middle - half).tolist()), tuple((middle + half).tolist())


def judge(numbers: NDArray[np.float32]) -> Quality:
    """Judge a frame's numbers (1, 4), as the graph gives them; NaN is doubtful."""
    confidence, displacement, folded, unseen = (float(x) for x in numbers[0])
    sure, near = confidence >= UNSURE_BELOW, displacement <= FAR_ABOVE
    fine = sure, near, folded <= FOLDED_ABOVE, unseen <= UNSEEN_ABOVE
    reason: Reason = next((why for why, good in zip(_WORDS, fine, strict=True) if not good), "")
    return Quality(confidence, displacement, folded, unseen, reason)


def summary(frames: Sequence[Quality], tried: Sequence[str] = ()) -> str:
    """One line about a clip: how many frames are doubtful, why, and what may help; "" if none.
    `tried`: options that cannot help.
    """
    counts = Counter(frame.reason for frame in frames if frame.state == "doubtful")
    if not counts:
        return ""
    found = [why for why in _WORDS if why in counts]
    said = ", ".join(f"{_WORDS[why][0]} ({counts[why]})" for why in found)
    advice = dict.fromkeys(each for why in found for each in _WORDS[why][1])
    left = [each for each in advice if each not in tried]
    helps = f"; try {', '.join(left)}" if left else ""
    return f"{counts.total()} of {len(frames)} frames doubtful: {said}{helps}"


def as_rows(frames: Sequence[Quality]) -> list[dict[str, Any]]:
    """One record per frame, for JSON; NaN and infinity become null."""

    def plain(value: Any) -> Any:
        return value if isinstance(value, str) or np.isfinite(value) else None

    return [
        {"frame": index, "state": frame.state, **{k: plain(v) for k, v in vars(frame).items()}}
        for index, frame in enumerate(frames)
    ]
