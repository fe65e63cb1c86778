"""Whether a frame can be trusted: the judgement, the words, and a cut in the middle of a clip."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from arithmetic_chain import CHAIN, MOVE, Arithmetic, level, tensor

from sonomime import cli
from sonomime.runtime import Animator, quality
from sonomime.runtime.bundle.manifest import QUALITY, Layers, Stage
from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.quality import Quality, as_rows, judge, summary, unseen
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.stills import read_image
from sonomime.runtime.session import Session, own_places
from sonomime.runtime.still import SAMPLES
from sonomime.runtime.support.errors import InputError

DEFORMATION = tensor("deformation", 1, 8, 8, 2)
MOTION = Stage("motion", "frame", (MOVE,), (tensor(QUALITY, 1, 4), DEFORMATION))
CHAIN = replace(CHAIN, stages=(*CHAIN.stages[:-1], MOTION, CHAIN.stages[-1]))


class Judging(Arithmetic):
    """Sure of a frame as long as its level is near the reference's."""

    def __init__(self) -> None:
        super().__init__(CHAIN)
        self.stages["motion"] = self.judge

    def judge(self) -> None:
        t = self.tensors
        # What moves is the frame's level less the gap between reference and source.
        moved = abs(t["displacement"][0, 0, 0, 0] - t["source_mean"][0])
        self.write(QUALITY, [[1 / (1 + moved), 0, 0, 0]])


BORDER = quality.UNSURE_BELOW, quality.FAR_ABOVE, quality.FOLDED_ABOVE, quality.UNSEEN_ABOVE


def quality_of(*numbers: float) -> Quality:
    return judge(np.array([numbers]))


GOOD, UNSURE, FAR = quality_of(1, 0, 0, 0), quality_of(0, 0, 0, 0), quality_of(1, 1, 0, 0)


def test_a_frame_is_doubtful_past_each_threshold() -> None:
    at = quality_of(*BORDER)
    assert (at.state, at.reason) == ("good", "")
    assert (at.confidence, at.displacement, at.folded, at.unseen) == BORDER
    for index, reason in enumerate(("unsure", "far", "folded", "unseen")):
        for step in (-0.01 if reason == "unsure" else 0.01, float("nan")):
            numbers = [*BORDER]
            numbers[index] += step
            past = quality_of(*numbers)
            assert (past.state, past.reason) == ("doubtful", reason)
    assert quality_of(0, 1, 1, 1).reason == "unsure", "the first reason is given"


def test_a_summary_counts_reasons_and_says_what_may_help() -> None:
    assert summary([]) == summary([GOOD]) == ""
    line = summary([UNSURE, GOOD, FAR, UNSURE, GOOD])
    assert line.startswith("3 of 5 frames doubtful") and "\n" not in line
    assert "(2)" in line and "(1)" in line
    assert line.count("--reference best") == 1 and "--scale" in line
    assert "--scale" not in summary([UNSURE])
    assert "best" in summary([UNSURE]) and "best" not in summary([UNSURE], ["--reference best"])


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


def test_rows_are_plain_and_none_where_a_number_is_none() -> None:
    rows = as_rows([GOOD, quality_of(float("nan"), 0, 0, 0)])
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0] == {
        "frame": 0, "state": "good", "reason": "",
        "confidence": 1.0, "displacement": 0.0, "folded": 0.0, "unseen": 0.0,
    }  # fmt: skip
    assert (rows[1]["frame"], rows[1]["state"], rows[1]["confidence"]) == (1, "doubtful", None)


def test_an_animator_says_how_the_last_frame_went() -> None:
    """Where there are layers, unseen is a share of the picture and not of the square."""
    chain = replace(CHAIN, layers=Layers(*["deformation"] * 5))
    backend = Judging()
    backend.tensors["deformation"] = own_places(8, 8) + np.array((0, 1 / 4), np.float32)  # a cell
    same, other = level(100)[0, 0], level(200)[0, 0]
    with Animator(Session(chain, backend)) as animator:
        begins: list[Callable[[], None]] = [
            lambda: animator.set_source(same[:8]), lambda: animator.set_source(same),
            lambda: animator.set_reference(same), animator.reset,
        ]  # fmt: skip
        for begin, share in zip(begins, (1 / 4, 1 / 8, 1 / 8, 1 / 8), strict=True):
            begin()
            assert animator.quality is None
            animator.animate(same)
            assert animator.quality == quality_of(1, 0, 0, share)
            animator.animate(other)
            assert animator.quality is not None and animator.quality.reason == "unsure"
        with pytest.raises(InputError):
            animator.set_source("no picture")
        assert animator.quality is None


def test_the_command_line_says_it_last_and_per_frame_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: Any = lambda *_, **__: Animator(Session(CHAIN, Judging()))  # noqa: E731
    monkeypatch.setattr(Animator, "open", opened)
    (tmp_path / "driving").mkdir()
    for i, grey in enumerate((100, 200, 100)):
        cv2.imwrite(str(tmp_path / "driving" / f"{i}.png"), level(grey)[0, 0])
    still = str(tmp_path / "driving" / "0.png")
    words = ["animate", still, str(tmp_path / "driving"), "-o", str(tmp_path / "out"), "--json"]
    assert cli.main(words) == 0
    output, errors = capsys.readouterr()
    record = json.loads(output)
    assert [row["state"] for row in record["quality"]] == ["good", "doubtful", "good"]
    assert (record["frames"], record["reference"]) == (3, 0)
    assert "1 of 3 frames doubtful" in errors.splitlines()[-1]


def test_the_default_bundle_notices_a_cut() -> None:
    clip = open_source(SAMPLES / "driving.mp4")
    moved = [frame.image for frame in islice(clip, 4)]
    with Animator.open(backend="cpu", threads=1) as animator:
        animator.set_source(moved[0])
        states = []
        for frame in (*moved, moved[0][::-1], read_image(SAMPLES / "lung_still.png")):
            animator.animate(frame)
            assert animator.quality is not None
            states.append(animator.quality.state)
    assert states == ["good"] * 4 + ["doubtful"] * 2
