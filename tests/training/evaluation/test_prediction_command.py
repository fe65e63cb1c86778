"""`sonomime evaluate` on a phantom's folder, from the command line to its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from sonomime.runtime.support.errors import ConfigError, InputError
from sonomime.training.evaluation import run
from sonomime.training.evaluation.candidate import Candidate

from ...toy_bundle import make_toy_bundle
from ...toy_displacement import make_displacement_toy
from .fakes import Fake, candidate_of
from .phantoms import SIZE, write_phantom
from .test_command import evaluate


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom")


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever is opened holds its source, unless it is a bundle."""
    opened = run.open_candidate

    @contextmanager
    def fake(path: Path) -> Iterator[Candidate]:
        if path.is_dir():
            with opened(path) as subject:
                yield subject
        else:
            yield candidate_of(Fake(), SIZE)

    monkeypatch.setattr(run, "open_candidate", fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_folder_gets_report_and_strips(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["x", "--data", made, "--task", "prediction", "--split", "test", "-o", tmp_path / "r"]
    assert evaluate(*words, "--max-frames", 4) == 0
    output = tmp_path / "r"
    assert sorted(p.relative_to(output).as_posix() for p in output.rglob("*.*")) == [
        "overview.png",
        "results.json",
        "strips/000_s0__s1.png",
        "strips/001_s1__s2.png",
        "strips/002_s2__s0.png",
        "table.md",
    ]
    record = json.loads((output / "results.json").read_text())
    assert [pair["pair"] for pair in record["pairs"]] == ["s0__s1", "s1__s2", "s2__s0"]
    assert record["means"]["exact"]["skill"]["model"] == 0
    assert record["settings"]["task"] == "prediction"
    said = capsys.readouterr()
    assert said.out == (output / "table.md").read_text()
    assert "3 pairs: skill 0.000" in said.err and "L1 0." in said.err


def test_json_and_a_quick_look(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["x", "--data", made, "--task", "prediction", "-o", tmp_path / "r", "--json"]
    evaluate(*words, "--split", "all", "--max-pairs", 2, "--max-frames", 2)
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "r" / "results.json").read_text())
    assert [pair["pair"] for pair in record["pairs"]] == ["s0__s1", "s3__s3"]
    assert "--max-pairs 2" in record["command"] and "--task prediction" in record["command"]


def test_a_bundle_predicts(made: Path, tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "toy", 64)  # the folder is 96 x 96
    words = [bundle, "--data", made, "--task", "prediction", "-o", tmp_path / "r"]
    evaluate(*words, "--max-pairs", 1, "--max-frames", 3)
    record = json.loads((tmp_path / "r" / "results.json").read_text())
    assert record["candidate"]["kind"] == "bundle"
    # At the reference frame nothing moves, whatever the model; afterwards something does.
    assert record["pairs"][0]["exact"]["endpoint_error"] != pytest.approx(
        record["pairs"][0]["exact"]["endpoint_hold"], rel=1e-3
    )


def test_a_bundle_says_whether_it_can_align_and_by_itself(made: Path, tmp_path: Path) -> None:
    toy = make_displacement_toy(tmp_path / "toy")
    with run.open_candidate(toy) as candidate:
        assert candidate.can_align and candidate.can_align_itself
    blind = make_displacement_toy(tmp_path / "blind", landmarks=())
    with run.open_candidate(blind) as candidate:
        assert candidate.can_align and not candidate.can_align_itself
    words = [blind, "--data", made, "--task", "prediction", "-o", tmp_path / "r"]
    with pytest.raises(ConfigError) as caught:
        evaluate(*words, "--alignment", "auto")
    assert caught.value.hint
    with run.open_candidate(make_toy_bundle(tmp_path / "keypoints")) as candidate:
        assert not candidate.can_align and not candidate.has_layers


def test_reconstruction_takes_the_field_along(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["x", "--data", made, "--split", "all", "-o", tmp_path / "r"]
    evaluate(*words, "--max-frames", 3)
    record = json.loads((tmp_path / "r" / "results.json").read_text())
    assert [clip["exact"]["skill"]["oracle"] for clip in record["clips"]] == [1, 1, 1, 1]
    assert record["means"]["all"]["exact"]["units"] == 4
    assert "## Against the exact field" in capsys.readouterr().out


def test_without_truth_it_is_said_how_to_make_it(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "p"))
    shutil.rmtree(folder / "truth")
    with pytest.raises(InputError) as caught:
        evaluate("x", "--data", folder, "--task", "prediction", "-o", tmp_path / "r")
    assert "sonomime phantom" in caught.value.hint
    assert not (tmp_path / "r").exists()


def test_a_damaged_field_stops_a_reconstruction_before_it_begins(
    made: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "p"))
    path = folder / "displacement" / "s2.npz"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError) as caught:
        evaluate("x", "--data", folder, "-o", tmp_path / "r")
    assert "s2.npz" in caught.value.message and caught.value.hint
    assert not list((tmp_path / "r").rglob("*.*"))


def test_an_empty_split_and_an_option_of_the_other_task(made: Path, tmp_path: Path) -> None:
    words = ["x", "--data", made, "-o", tmp_path / "r"]
    with pytest.raises(InputError):
        evaluate(*words, "--task", "prediction", "--split", "nothing")
    for option in (("--max-pairs", 3), ("--alignment", "none")):
        with pytest.raises(ConfigError):
            evaluate(*words, *option)


def test_a_model_that_cannot_align_is_not_aligned(made: Path, tmp_path: Path) -> None:
    words = ["x", "--data", made, "--task", "prediction", "-o", tmp_path / "r", "--max-pairs", 1]
    evaluate(*words, "--max-frames", 2)
    record = json.loads((tmp_path / "r" / "results.json").read_text())
    assert record["settings"]["alignment"] == "none" and "--alignment none" in record["command"]
    assert record["pairs"][0]["aligned_by"] == "nothing"
    for alignment in ("given", "auto"):
        with pytest.raises(ConfigError) as caught:
            evaluate(*words, "--alignment", alignment)
        assert caught.value.hint


def test_a_crop_moves_everything_along(made: Path, tmp_path: Path) -> None:
    words = ["x", "--data", made, "--task", "prediction", "-o", tmp_path / "r", "--max-pairs", 1]
    evaluate(*words, "--crop", "16,16,64,64")
    whole = tmp_path / "whole"
    evaluate(*words[:-3], whole, "--max-pairs", 1)
    cropped, full = (
        json.loads((f / "results.json").read_text())["pairs"][0] for f in (tmp_path / "r", whole)
    )
    # The crop is enlarged by 96 / 64, and so is what moves in it.
    ends = [pair["exact"]["landmark"]["hold"] for pair in (cropped, full)]
    assert ends[0] == pytest.approx(1.5 * ends[1], rel=1e-4)
    assert np.isfinite(cropped["exact"]["skill"]["oracle"])
    assert cropped["exact"]["landmark"]["truth"] < 0.15 * ends[0]
