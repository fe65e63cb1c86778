"""A study is made blind: nothing but the key tells the arms apart."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sonomime.cli import main
from sonomime.runtime.media.mark import SYNTHETIC, draw_mark
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.support.errors import ConfigError, InputError, OutputError
from sonomime.training.study import clips
from sonomime.training.study.arms import bears_mark, parse_arms
from sonomime.training.study.make import make
from sonomime.training.study.orders import draw_order
from sonomime.training.study.study_folder import clip_file, read_key, read_study

from .conftest import CASES, write


def facts(path: Path) -> dict[str, Any]:
    """All that a browser could tell clips apart by."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        frames = [frame.pts for frame in container.decode(video=0)]
        return {
            "codec": context.name, "profile": context.profile, "format": context.pix_fmt,
            "range": int(context.color_range), "size": (context.width, context.height),
            "rate": stream.average_rate, "times": frames, "texts": dict(container.metadata),
            "bytes": path.stat().st_size, "stream": dict(stream.metadata),
        }  # fmt: skip


def test_the_clips_of_a_case_are_alike_in_all_but_the_picture(made: Path) -> None:
    key = read_key(made / "key.json", read_study(made))
    by_case: dict[str, list[dict[str, Any]]] = {case: [] for case in CASES}
    for coded in key.clips:
        by_case[coded.case].append(facts(clip_file(made, coded.clip)))
    for number, found in enumerate(by_case.values()):
        assert len(found) == 3 and found[0] == found[1] == found[2]
        assert found[0]["size"] == (96, 64) and found[0]["rate"] == 20
        assert len(found[0]["times"]) == min(6 + number, 9), "as long as the shortest"
        assert found[0]["codec"] in ("h264", "vp9") and "420p" in found[0]["format"]
        assert SYNTHETIC not in str(found[0]["texts"])


def test_the_picture_is_that_of_its_source(made: Path, arms: dict[str, Path]) -> None:
    key = read_key(made / "key.json", read_study(made))
    for coded in key.clips[:4]:
        frames = list(open_source(clip_file(made, coded.clip)))
        assert coded.source.startswith(str(arms[coded.arm]))
        for frame in frames:
            assert abs(int(np.median(frame.image)) - (40 + 8 * frame.index)) <= 2
            assert frame.image[24, 36] > 190


def test_only_the_key_knows_and_it_is_sealed(made: Path) -> None:
    study, data = read_study(made), (made / "key.json").read_bytes()
    assert (made / "key.json").stat().st_mode & 0o077 == 0
    assert study.key_sha256 == hashlib.sha256(data).hexdigest()
    text = (made / "study.json").read_text()
    assert not any(word in text for word in ("real/", "fomm", "ours", "seed", str(made)))
    names = sorted(path.name for path in (made / "clips").iterdir())
    assert names == sorted(f"{clip}.mp4" for clip in set(study.orders[0]))
    times = {(made / "clips" / name).stat().st_mtime_ns for name in names}
    assert len(times) == 1, "the time of a file says nothing"


def test_a_seed_gives_the_same_study_and_no_seed_another(
    arms: dict[str, Path], tmp_path: Path
) -> None:
    few = {arm: arms[arm] for arm in ("real", "fomm")}
    for name, seed in (("one", 7), ("same", 7), ("other", 8), ("drawn", None)):
        make(tmp_path / name, few, print, raters=2, repeats=0, seed=seed)
    one, same, other, drawn = (read_study(tmp_path / n) for n in ("one", "same", "other", "drawn"))
    assert one == same
    assert len({study.orders for study in (one, other, drawn)}) == 3
    assert not set(one.orders[0]) & set(other.orders[0]) and one.orders[0] != one.orders[1]
    assert (one.real_or_fake, len(one.orders[0])) == (False, 8)


def test_orders_repeat_evenly_and_never_a_case_twice_in_a_row() -> None:
    names = [f"{case}{arm}" for case in range(6) for arm in "xyz"]
    arm, case = {n: n[-1] for n in names}, {n: n[:-1] for n in names}
    orders = [draw_order(names, arm, case, 6, np.random.default_rng(seed)) for seed in range(20)]
    assert len(set(orders)) == 20
    for order in orders:
        assert set(order) == set(names) and len(order) == 24
        twice = [name for name, count in Counter(order).items() if count == 2]
        assert Counter(name[-1] for name in twice) == {"x": 2, "y": 2, "z": 2}
        assert all(case[a] != case[b] for a, b in pairwise(order))
        assert all(len(order) - 1 - order[::-1].index(n) - order.index(n) > 4 for n in twice)
    one = draw_order(
        ["p", "q"], {"p": "x", "q": "y"}, {"p": "1", "q": "1"}, 2, np.random.default_rng(0)
    )
    assert sorted(one) == ["p", "p", "q", "q"], "where it is not possible"


def test_cases_that_an_arm_lacks_are_left_out_and_said(
    arms: dict[str, Path], tmp_path: Path, said: Any
) -> None:
    lines, say = said
    write(tmp_path / "few" / "b.mp4", frames=5)
    write(tmp_path / "few" / "z.mp4")
    done = make(tmp_path / "study", {"real": arms["real"], "few": tmp_path / "few"}, say)
    assert (done.clips, done.cases, done.frames) == (2, 1, (5, 5))
    assert any("few" in line and "z" in line for line in lines)
    assert any("real" in line and "a, c, d" in line for line in lines)


def test_arms_without_a_common_case_are_compared_by_all_their_clips(
    arms: dict[str, Path], tmp_path: Path, said: Any
) -> None:
    lines, say = said
    for name in ("y", "z"):
        write(tmp_path / "other" / f"{name}.mp4", (96, 64), 7)
    done = make(tmp_path / "study", {"a": arms["fomm"], "b": tmp_path / "other"}, say, seed=1)
    assert (done.clips, done.cases, done.frames) == (6, 0, (6, 6)) and lines
    study = read_study(tmp_path / "study")
    key = read_key(tmp_path / "study" / "key.json", study)
    assert not key.matched and len({coded.case for coded in key.clips}) == 6
    found = [facts(clip_file(tmp_path / "study", coded.clip)) for coded in key.clips]
    assert all(each == found[0] for each in found)


def test_a_mark_in_some_arms_alone_is_found(tmp_path: Path, said: Any) -> None:
    lines, say = said
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 90, (120, 160), dtype=np.uint8)
    assert bears_mark(draw_mark(plain)) and not bears_mark(plain)
    assert not bears_mark(np.zeros_like(plain))
    from sonomime.runtime.sinks.open_sink import open_sink

    for arm, images in (("real", plain), ("ours", draw_mark(plain))):
        with open_sink(tmp_path / arm / "a.mp4", (160, 120)) as sink:
            sink.write(images)
            sink.write(images)
    make(tmp_path / "one", parse_arms([f"{a}={tmp_path / a}" for a in ("real", "ours")]), say)
    assert any("--no-mark" in line and "ours 100%" in line for line in lines)
    lines.clear()
    (tmp_path / "more").symlink_to(tmp_path / "ours")
    with pytest.raises(ConfigError):
        parse_arms([f"ours={tmp_path / 'ours'}", f"more={tmp_path / 'more'}"])


def test_what_would_tell_arms_apart_is_refused(arms: dict[str, Path], tmp_path: Path) -> None:
    write(tmp_path / "square" / "a.mp4", (96, 96))
    write(tmp_path / "slow" / "a.mp4", fps=10)
    real = arms["real"]
    for other in ("square", "slow"):
        with pytest.raises(InputError) as caught:
            make(tmp_path / "study", {"real": real, "ours": tmp_path / other}, print)
        assert "a.mkv" in caught.value.message and caught.value.hint
        assert not (tmp_path / "study").exists()
    cured = {"real": real, "ours": tmp_path / "slow"}
    make(tmp_path / "study", cured, print, fps=Fraction(15), size=(120, 80))
    found = [facts(path) for path in (tmp_path / "study" / "clips").iterdir()]
    assert found[0] == found[1] and (found[0]["rate"], found[0]["size"]) == (15, (120, 80))


def test_an_encoder_that_browsers_cannot_play_is_not_taken(
    arms: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "MP4_ENCODERS", (("mpeg4", {}),))
    with pytest.raises(OutputError):
        make(tmp_path / "study", arms, print)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--arm", "real={real}"], 2),
        (["--arm", "real={real}", "--arm", "fomm"], 2),
        (["--arm", "real={real}", "--arm", "a/b={fomm}"], 2),
        (["--arm", "real={real}", "--arm", "real={fomm}"], 2),
        (["--arm", "real={real}", "--arm", "fomm={real}"], 2),
        (["--arm", "a={real}", "--arm", "b={fomm}", "--real-or-fake"], 2),
        (["--arm", "a={real}", "--arm", "b={fomm}", "--repeats", "9"], 2),
        (["--arm", "a={real}", "--arm", "b={fomm}", "--size", "33x20"], 2),
        (["--arm", "a={real}", "--arm", "b={fomm}", "--question", ""], 2),
        (["--arm", "a={real}", "--arm", "b={tmp}/none"], 6),
        (["--arm", "a={real}", "--arm", "b={tmp}/empty"], 6),
    ],
)
def test_mistakes_leave_with_a_code_a_hint_and_nothing_behind(
    words: list[str], code: int, arms: dict[str, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    given = [word.format(tmp=tmp_path, **arms) for word in words]
    assert main(["study", "make", str(tmp_path / "study"), *given]) == code
    errors = capsys.readouterr().err
    assert "hint: " in errors and "defect" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("verb", ["make", "serve", "report"])
def test_each_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", verb, "--help"]) == 0
    assert f"example:\n  sonomime study {verb} " in capsys.readouterr().out


def test_the_command_says_what_it_made_and_needs_no_torch(
    arms: dict[str, Path], tmp_path: Path, run_python: Any
) -> None:
    code = (
        "import sys\nfrom sonomime.cli import main\ncode = main(sys.argv[1:])\n"
        "print([n for n in ('torch', 'onnx', 'onnxruntime') if n in sys.modules], code)"
    )
    given = [word for arm in ("real", "ours") for word in ("--arm", f"{arm}={arms[arm]}")]
    status, output, errors = run_python(code, "study", "make", str(tmp_path / "s"), *given)
    assert status == 0, errors
    assert output.splitlines() == [str(tmp_path / "s"), "[] 0"]
    assert "8 clips (4 cases in 2 arms)" in errors and "192x128" in errors
    assert json.loads((tmp_path / "s" / "key.json").read_text())["matched"] is True
