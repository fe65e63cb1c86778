"""Whether a frame can be trusted: the judgement, the words, and a cut in the middle of a clip."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from arithmetic_chain import CHAIN, MOVE, Arithmetic, level, tensor

from sonomime import cli
from sonomime.runtime import Animator
from sonomime.runtime.bundle.manifest import QUALITY, Chain, Layers, Stage
from sonomime.runtime.media.frames import Letterbox, read_image
from sonomime.runtime.media.video import open_source
from sonomime.runtime.pipeline import SAMPLES
from sonomime.runtime.quality import (
    FAR_ABOVE,
    FOLDED_ABOVE,
    UNSEEN_ABOVE,
    UNSURE_BELOW,
    Quality,
    as_rows,
    judge,
    summary,
    unseen,
)
from sonomime.runtime.session import Session, own_places
from sonomime.runtime.support.errors import BackendError, InputError

MOTION = Stage("motion", "frame", (MOVE,), (tensor(QUALITY, 1, 4),))
JUDGING = replace(CHAIN, stages=(*CHAIN.stages[:-1], MOTION, CHAIN.stages[-1]))


class Judging(Arithmetic):
    """Sure of a frame as long as its level is near the reference's."""

    def __init__(self) -> None:
        super().__init__(JUDGING)
        self.stages["motion"] = self.judge

    def judge(self) -> None:
        t = self.tensors
        # What moves is the frame's level less the gap between reference and source.
        moved = abs(t["displacement"][0, 0, 0, 0] - t["source_mean"][0])
        self.write(QUALITY, [[1 / (1 + moved), 0, 0, 0]])


BORDER = (UNSURE_BELOW, FAR_ABOVE, FOLDED_ABOVE, UNSEEN_ABOVE)


def quality_of(*numbers: float) -> Quality:
    return judge(np.array([numbers]))


@pytest.mark.parametrize(
    ("index", "step", "reason"),
    [(0, -0.01, "unsure"), (1, 0.01, "far"), (2, 0.01, "folded"), (3, 0.01, "unseen")],
)
def test_a_frame_is_doubtful_past_each_threshold(index: int, step: float, reason: str) -> None:
    at = quality_of(*BORDER)
    assert (at.state, at.reason) == ("good", "")
    assert (at.confidence, at.displacement, at.folded, at.unseen) == BORDER
    for value in (BORDER[index] + step, float("nan")):
        numbers = [*BORDER]
        numbers[index] = value
        past = quality_of(*numbers)
        assert (past.state, past.reason) == ("doubtful", reason)
    assert quality_of(0, 1, 1, 1).reason == "unsure", "the first reason is given"


def test_a_summary_counts_reasons_and_says_what_may_help() -> None:
    good, unsure, far = quality_of(1, 0, 0, 0), quality_of(0, 0, 0, 0), quality_of(1, 1, 0, 0)
    assert summary([]) == summary([good]) == ""
    line = summary([unsure, good, far, unsure, good])
    assert line.startswith("3 of 5 frames doubtful") and "\n" not in line
    assert "(2)" in line and "(1)" in line
    assert line.count("--reference best") == 1 and "--scale" in line
    assert "--scale" not in summary([unsure])


def test_bars_beside_a_picture_are_not_seen() -> None:
    still = own_places(64, 64)
    for width, height in ((256, 256), (727, 579), (3000, 8)):
        assert unseen(still, Letterbox.fit(width, height, 256)) == 0
    wide, high = Letterbox.fit(800, 400, 256), Letterbox.fit(400, 800, 256)
    for shift, box, share in (
        ((0, 1 / 32), wide, 1 / 32), ((1 / 32, 0), wide, 1 / 64), ((-1 / 32, 0), high, 1 / 32),
        ((0, 2), wide, 1), ((np.nan, 0), wide, 1),
    ):  # fmt: skip
        assert unseen(still + np.array(shift, np.float32), box) == pytest.approx(share)


def test_where_there_are_layers_the_picture_counts_and_not_the_square() -> None:
    made = tensor(QUALITY, 1, 4), tensor("deformation", 1, 8, 8, 2)
    motion = Stage("motion", "frame", (MOVE,), made)
    stages = (*JUDGING.stages[:-2], motion, JUDGING.stages[-1])
    chain = replace(JUDGING, stages=stages, layers=Layers(*["deformation"] * 5))
    backend = Judging()
    backend.tensors["deformation"] = own_places(8, 8) + np.array((0, 1 / 4), np.float32)  # a cell
    square = level(100)[0, 0]
    with Animator(Session(chain, backend)) as animator:
        for source, share in ((square[:8], 1 / 4), (square, 1 / 8)):
            animator.set_source(source)
            animator.animate(square)
            assert animator.quality is not None
            assert (animator.quality.unseen, animator.quality.confidence) == (share, 1)


def test_rows_are_plain_and_none_where_a_number_is_none() -> None:
    rows = as_rows([quality_of(1, 0, 0, 0), quality_of(float("nan"), 0, 0, 0)])
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0] == {
        "frame": 0, "state": "good", "reason": "",
        "confidence": 1.0, "displacement": 0.0, "folded": 0.0, "unseen": 0.0,
    }  # fmt: skip
    assert (rows[1]["frame"], rows[1]["state"], rows[1]["confidence"]) == (1, "doubtful", None)


@pytest.fixture
def animator() -> Iterator[Animator]:
    with Animator(Session(JUDGING, Judging())) as opened:
        yield opened


def test_an_animator_says_how_the_last_frame_went(animator: Animator) -> None:
    same, other = level(100)[0, 0], level(200)[0, 0]
    begins: list[Callable[[], None]] = [
        lambda: animator.set_source(same), lambda: animator.set_reference(same), animator.reset,
    ]  # fmt: skip
    for begin in begins:
        begin()
        assert animator.quality is None
        animator.animate(same)
        assert animator.quality == quality_of(1, 0, 0, 0)
        animator.animate(other)
        assert animator.quality is not None and animator.quality.reason == "unsure"
    with pytest.raises(InputError):
        animator.set_source("no picture")
    assert animator.quality is None
    animator.close()
    with pytest.raises(BackendError):
        _ = animator.quality


@pytest.mark.parametrize(("chain", "cut"), [(JUDGING, True), (JUDGING, False), (CHAIN, True)])
def test_the_command_line_says_it_last_and_per_frame_in_json(
    tmp_path: Path, chain: Chain, cut: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Nothing is said by a model that does not judge."""
    judges = chain is JUDGING

    def opened(*arguments: Any, **options: Any) -> Animator:
        return Animator(Session(chain, Judging() if judges else Arithmetic()))

    monkeypatch.setattr(Animator, "open", opened)
    (tmp_path / "driving").mkdir()
    for i, grey in enumerate((100, 200 if cut else 101, 100)):
        cv2.imwrite(str(tmp_path / "driving" / f"{i}.png"), level(grey)[0, 0])
    still = str(tmp_path / "driving" / "0.png")
    words = ["animate", still, str(tmp_path / "driving"), "-o", str(tmp_path / "out"), "--json"]
    assert cli.main(words) == 0
    output, errors = capsys.readouterr()
    record = json.loads(output)
    states = [row["state"] for row in record["quality"]]
    assert states == (["good", "doubtful" if cut else "good", "good"] if judges else [])
    assert (record["frames"], record["reference"]) == (3, 0)
    assert ("1 of 3 frames doubtful" in errors.splitlines()[-1]) == (cut and judges)


def test_the_default_bundle_notices_a_cut() -> None:
    with open_source(SAMPLES / "driving.mp4") as clip:
        moved = [frame.image for frame in islice(clip, 4)]
    with Animator.open(backend="cpu", threads=1) as animator:
        animator.set_source(moved[0])
        states = []
        for frame in (*moved, moved[0][::-1], read_image(SAMPLES / "lung_still.png")):
            animator.animate(frame)
            assert animator.quality is not None
            states.append(animator.quality.state)
    assert states == ["good"] * 4 + ["doubtful"] * 2
