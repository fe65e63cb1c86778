"""How a stream shows its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..compose import Size
from ..landmarks import Landmarks
from ..media.frames import Crop
from .turns import Turns


@dataclass(frozen=True)
class How:
    """
    Attributes:
        size: of the frames, as of the first source; later sources are fitted into it.
        landmarks: as for `align_pair`; places are those of the first source and reference.
        mark: burn in the synthetic mark, and words for the state.
        on_cut: after a scene cut in the driving frames: take a new reference, or go on.
        crop: the part of whole driving frames that the feed gives.
        loop: repeat a motion template.
        source_every: seconds after which a live source's newest frame is taken; None: by order.
        turns: shared with other streams of the program; None: frames are made at once.
    """

    size: Size = "source"
    landmarks: Landmarks = "auto"
    mark: bool = True
    on_cut: Literal["reset", "ignore"] = "reset"
    crop: Crop | None = None
    loop: bool = False
    source_every: float | None = None
    turns: Turns | None = None


AS_ASKED = How()
