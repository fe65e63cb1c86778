"""What a bundle says of its own frames, over clips whose levels are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from arithmetic_chain import CHAIN, Arithmetic, level
from judging_chain import JUDGING, Judging

from sonomime.benchmarks.quality import main, report, spread
from sonomime.runtime import Animator
from sonomime.runtime.quality import judge
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import ConfigError, InputError


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two clips of three frames that hardly change, far from each other."""
    for name, grey in (("dark", 100), ("light", 200)):
        folder = tmp_path / "clips" / name
        folder.mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(folder / f"{i}.png"), level(grey + i)[0, 0])
    return tmp_path / "clips"


def use(monkeypatch: pytest.MonkeyPatch, animator: Animator) -> None:
    def opened(*arguments: Any, **options: Any) -> Animator:
        return animator

    monkeypatch.setattr(Animator, "open", opened)


def test_frames_are_spread_over_a_clip(clips: Path) -> None:
    assert [int(frame[0, 0]) for frame in spread(clips / "dark", 2)] == [100, 102]
    assert len(spread(clips / "dark", 9)) == 3


def test_a_cut_stands_out_from_the_clip_itself(
    clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Animator(Session(JUDGING, Judging())))
    main([str(clips), "--every", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert "the same clip, scale 1: 0 of 4 doubtful" in lines
    assert "a cut to another clip: 6 of 6 doubtful" in lines
    assert "black: 2 of 2 doubtful" in lines


def test_what_cannot_be_measured_is_refused(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError):
        main([str(clips)])  # every second of two clips: there is nothing to cut to
    use(monkeypatch, Animator(Session(CHAIN, Arithmetic())))
    with pytest.raises(ConfigError):
        main([str(clips), "--every", "1"])


def test_a_report_has_reasons_and_quantiles() -> None:
    frames = [judge(np.array([[share, 0, 0, 0]])) for share in (0.0, 0.5, 1.0)]
    lines = report("a case", frames).splitlines()
    assert lines[0] == "a case: 1 of 3 doubtful" and lines[1].split() == ["unsure:", "1"]
    values = [float(word) for word in lines[2].split()[1:]]
    assert (values[0], values[3], values[-1]) == (0, 0.5, 1)
