"""The model for a Triton server: sequences begin, mix, fail and end; what the folder holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_triton import Served, parse
from toy_bundle import blob, centre

from sonomime.cli import main
from sonomime.export.triton import Settings, write_repository
from sonomime.runtime import Animator
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.media.mark import draw_mark
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.still import SAMPLES

Patch = pytest.MonkeyPatch
Serve = Callable[..., Served]


@pytest.fixture
def serve(toy_bundle: Path, tmp_path: Path, monkeypatch: Patch) -> Any:
    """Write the repository of a bundle, the toy by default, and run its model."""
    running: list[Served] = []

    def start(bundle: Path | None = toy_bundle, **settings: Any) -> Served:
        folder = tmp_path / f"repository{len(running)}"
        model = write_repository(Bundle.open(bundle), folder, Settings(**settings))
        running.append(Served(model, monkeypatch))
        return running[-1]

    yield start
    for each in running:
        each.model.finalize()


def grey(x: float, y: float = 0.0, width: int = 64, height: int | None = None) -> Any:
    return blob(width, x, y, height=height)[..., None]


def place(answer: dict[str, Any]) -> Any:
    return centre(answer["frame"][..., 0])


def test_a_sequence_makes_the_animators_frames(serve: Serve) -> None:
    still = next(iter(open_source(SAMPLES / "lung_still.png"))).image
    frames = list(open_source(SAMPLES / "lung.mp4"))[:4]
    served = serve(None, backend="ort-cpu")
    with Animator.open(backend="ort-cpu") as animator:
        animator.set_source(still)
        animator.set_reference(frames[1].image)
        animator.align()
        for i, frame in enumerate(frames):
            more = {"source": still[..., None], "reference": frames[1].image[..., None]}
            given = {"driving": frame.image[..., None], "timestamp": np.array([frame.timestamp])}
            answer = served.ask(7, start=not i, end=i == 3, **given, **(more if not i else {}))
            wanted = animator.animate(frame.image, frame.timestamp, size="source")
            np.testing.assert_array_equal(answer["frame"][..., 0], draw_mark(wanted))
            quality = animator.quality
            assert quality is not None and answer["confidence"][0] == np.float32(quality.confidence)
            assert answer["state"] == {"good": "live"}.get(quality.state, quality.state)
            assert answer["why"] == quality.why
            assert json.loads(answer["texts"])["synthetic"] == "YES"


def test_a_frame_that_cannot_be_trusted_is_called_doubtful(serve: Serve) -> None:
    still = next(iter(open_source(SAMPLES / "lung_still.png"))).image[..., None]
    served = serve(None, backend="ort-cpu")
    assert served.ask(1, start=True, source=still, driving=still)["state"] == "live"
    answer = served.ask(1, driving=np.zeros_like(still))
    assert answer["state"] == "doubtful" and answer["why"] and answer["confidence"][0] < 1 / 6


def test_sequences_that_mix_do_not_touch_each_other(serve: Serve) -> None:
    served = serve(mark=False)
    path = [grey(0.1 * i) for i in range(5)]
    alone = [
        served.ask(1, start=not i, driving=frame, **({} if i else {"source": grey(-0.4)}))
        for i, frame in enumerate(path)
    ]
    mixed: dict[int, list[Any]] = {2: [], 3: []}
    for i, frame in enumerate(path):
        for number, at in ((2, -0.4), (3, 0.4)):
            more = {} if i else {"source": grey(at)}
            given = frame if number == 2 else grey(-0.1 * i)
            mixed[number].append(served.ask(number, start=not i, driving=given, **more))
    for one, other in zip(alone, mixed[2], strict=True):
        np.testing.assert_array_equal(one["frame"], other["frame"])
    assert place(mixed[2][-1])[0] > -0.2 and place(mixed[3][-1])[0] < 0.2


def test_requests_of_one_call_are_answered_each_by_itself(serve: Serve) -> None:
    served = serve()
    answers = served.model.execute([
        served.request(1, start=True, source=grey(0), driving=grey(0)),
        served.request(2, start=True, driving=grey(0)),
        served.request(1, driving=grey(0.1)),
    ])  # fmt: skip
    assert [answer.error is None for answer in answers] == [True, False, True]


def test_errors_are_answered_and_the_sequence_goes_on(serve: Serve) -> None:
    served = serve(mark=False)
    said = served.ask(5, start=True, driving=grey(0))["error"]
    assert "no source" in said and "send `source`" in said
    begun = served.ask(5, source=grey(-0.3), driving=grey(0), timestamp=np.array([1.0]))
    assert place(begun)[0] == pytest.approx(-0.3, abs=0.03)
    for wrong, word in (
        ({"driving": np.zeros((4, 5, 2), np.uint8)}, "`driving` has the shape [4, 5, 2]"),
        ({"driving": grey(0.1), "source": np.zeros((0, 9, 1), np.uint8)}, "`source` has"),
        ({"driving": grey(0.1), "timestamp": np.array([0.5])}, "begin another sequence"),
        ({"driving": grey(0.1), "parameters": {"scale": -1}}, "scale is -1"),
        ({"driving": grey(0.1), "parameters": {"scale": "much"}}, "scale is 'much'"),
        ({"driving": grey(0.1), "parameters": {"sclae": 1}}, "unknown parameter sclae"),
    ):
        assert word in served.ask(5, **wrong)["error"]
    after = served.ask(5, driving=grey(0.2), timestamp=np.array([1.1]))
    assert place(after)[0] == pytest.approx(-0.1, abs=0.03)


def test_a_second_source_takes_over_and_the_reference_stays(serve: Serve) -> None:
    served = serve(mark=False)
    served.ask(1, start=True, source=grey(-0.3), driving=grey(0))
    assert place(served.ask(1, driving=grey(0.2)))[0] == pytest.approx(-0.1, abs=0.03)
    other = grey(0.3, -0.2, width=96, height=48)
    answer = served.ask(1, source=other, driving=grey(0.2))
    assert answer["frame"].shape == (48, 96, 1)
    assert place(answer)[0] == pytest.approx(0.5, abs=0.05)
    changed = served.ask(1, reference=grey(0.2), driving=grey(0.2))
    assert place(changed)[0] == pytest.approx(0.3, abs=0.05)


def test_an_ended_sequence_leaves_nothing_to_the_next(serve: Serve) -> None:
    served = serve(mark=False)
    served.ask(1, start=True, source=grey(-0.3), driving=grey(0), parameters={"scale": 0.5})
    assert place(served.ask(1, driving=grey(0.4)))[0] == pytest.approx(-0.1, abs=0.03)
    ended = served.ask(1, end=True)
    assert ended["state"] == "no frame" and ended["frame"].size == 0
    assert "sequence 1 is not running" in served.ask(1, driving=grey(0))["error"]
    assert "no source" in served.ask(2, start=True, driving=grey(0))["error"]
    served.ask(2, source=grey(-0.3), driving=grey(0))  # the scale is 1 again
    assert place(served.ask(2, driving=grey(0.4)))[0] == pytest.approx(0.1, abs=0.03)
    assert "error" in served.ask(2, end=True, driving=np.zeros((0, 0, 1), np.uint8))
    assert "not running" in served.ask(2, driving=grey(0))["error"]


def test_a_sequence_that_begins_again_begins_anew(serve: Serve) -> None:
    served = serve(mark=False)
    served.ask(1, start=True, source=grey(-0.3), driving=grey(0))
    answer = served.ask(1, start=True, source=grey(0.1), driving=grey(0.4))  # the new reference
    assert place(answer)[0] == pytest.approx(0.1, abs=0.03)


def test_animators_are_opened_when_needed_and_used_again(serve: Serve, monkeypatch: Patch) -> None:
    opened: list[str] = []
    open_one, another = Animator.open, Animator.another

    def counted_open(*args: Any, **more: Any) -> Animator:
        opened.append("open")
        return open_one(*args, **more)

    def counted_another(self: Animator) -> Animator:
        opened.append("another")
        return another(self)

    monkeypatch.setattr(Animator, "open", counted_open)
    monkeypatch.setattr(Animator, "another", counted_another)
    served = serve(sequences=2)
    assert opened == ["open"]
    begin = {"start": True, "source": grey(0), "driving": grey(0)}
    for number in (1, 2):
        assert "error" not in served.ask(number, **begin)
    served.ask(1, driving=grey(0.1))
    assert opened == ["open", "another"]
    # Two at most: the server has given one up. That is the one that was silent for longer.
    served.ask(3, **begin)
    assert opened == ["open", "another"]
    assert "error" not in served.ask(1, driving=grey(0.1))
    assert "not running" in served.ask(2, driving=grey(0.1))["error"]


def test_a_defect_is_an_error_of_one_request(serve: Serve, monkeypatch: Patch) -> None:
    served = serve()
    served.ask(1, start=True, source=grey(0), driving=grey(0))
    with monkeypatch.context() as patch:
        patch.setattr(served.module, "draw_mark", lambda frame: 1 // 0)
        said = served.ask(1, driving=grey(0.1))["error"]
    assert "defect" in said and "ZeroDivisionError" in said
    assert "error" not in served.ask(1, driving=grey(0.1))


def test_sizes_and_the_mark(serve: Serve) -> None:
    source = grey(0, width=96, height=48)
    given = {"start": True, "source": source, "driving": source}
    of_model = serve(size="model", mark=False).ask(1, **given)["frame"]
    assert of_model.shape == (32, 64, 1)
    bare, marked = (serve(mark=mark).ask(1, **given)["frame"] for mark in (False, True))
    np.testing.assert_array_equal(draw_mark(bare[..., 0]), marked[..., 0])
    assert (bare != marked).any()


def test_config_says_what_the_model_takes_and_gives(serve: Serve) -> None:
    config = serve(sequences=3, idle=2.5, backend="cpu", threads=2).config
    assert config["name"] == "sonomime" and config["max_batch_size"] == 0
    assert all(each["optional"] for each in config["input"])
    batching = config["sequence_batching"]
    assert batching["max_sequence_idle_microseconds"] == 2_500_000
    assert batching["oldest"] == {"max_candidate_sequences": 3}
    kinds = {each["name"]: each["control"][0]["kind"] for each in batching["control_input"]}
    assert kinds == {name: f"CONTROL_SEQUENCE_{name}" for name in ("START", "END", "CORRID")}
    values = {name: each["string_value"] for name, each in config["parameters"].items()}
    assert values == {"backend": "cpu", "threads": "2", "size": "source", "mark": "yes"}


@pytest.mark.parametrize("bad", ['a: "b', "a { b: 1", "a: [1 2]", "a 1", "a: 1 a: 2", "a: 1 }"])
def test_a_broken_config_is_found(bad: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        parse(bad)


def test_the_verb(toy_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "models"
    assert main(["triton", str(toy_bundle), "-o", str(out), "--no-mark"]) == 0
    said = capsys.readouterr()
    assert "the synthetic mark is left out" in said.err and str(out) in said.out
    assert Bundle.open(out / "sonomime" / "bundle").digest == Bundle.open(toy_bundle).digest
    assert re.search(r'"mark" value \{ string_value: "no" \}', _text(out))
    assert main(["triton", str(toy_bundle), "-o", str(out)]) == 7
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sequences", "0"], "--sequences is 0"),
        (["--idle", "nan"], "--idle is nan"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--backend", "ort-cdua"], "did you mean 'ort-cuda'?"),
    ],
)
def test_a_wrong_option_leaves_nothing(
    words: list[str], said: str, toy_bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main(["triton", str(toy_bundle), "-o", str(tmp_path / "models"), *words]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "models").exists()


def _text(repository: Path) -> str:
    return (repository / "sonomime" / "config.pbtxt").read_text()
