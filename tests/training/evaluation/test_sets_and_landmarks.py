"""`sonomime evaluate` with networks, of transfers and of detected landmarks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from sonomime.runtime.support.plain_file import sha256_file
from sonomime.training.evaluation import run
from sonomime.training.evaluation.candidate import Candidate
from sonomime.training.evaluation.networks.squeezenet import SqueezeNet

from ...lively import SMALL, lively_checkpoint
from ...toy_bundle import make_toy_bundle
from .fakes import NAMES, SUBJECTS, Fake, candidate_of, copy
from .reports import PREDICTION, evaluate


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`squeezenet=FILE@SHA256`, random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("networks") / "squeezenet.pth"
    torch.save(SqueezeNet().state_dict(), path)
    return f"squeezenet={path}@{sha256_file(path)}"


@pytest.mark.usefixtures("trained_on")
def test_networks_add_distances_to_the_report(
    phantom: Path, squeezenet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["copy", "--data", phantom, "--split", "all", "--network", squeezenet]
    record = evaluate(tmp_path / "r", *words)
    assert record["settings"]["networks"] == squeezenet and squeezenet in record["command"]
    by_name = {row["measure"]: row for row in record["distances"]}
    assert list(by_name) == ["fd_squeeze", "kd_squeeze"]  # no clip has 16 frames
    row = by_name["fd_squeeze"]
    assert (row["clips"], row["frames"], row["features"]) == (4, 4 * 8, 512)
    assert row["sha256"] == [squeezenet.partition("@")[2]]
    values = {name: each["value"] for name, each in row["methods"].items()}
    assert values["model"] == pytest.approx(0, abs=1e-4 * values["hold"])
    assert row["methods"].keys() == {"model", "hold", "blur", "flow", "oracle"}
    assert row["methods"]["model"]["low"] is None  # four subjects
    said, text = capsys.readouterr(), (tmp_path / "r" / "table.md").read_text()
    assert "fd_squeeze" in said.out and "fvd_squeeze" in said.err
    assert all(name in text for name in by_name) and squeezenet in text
    plain = evaluate(tmp_path / "plain", *words[:-2])
    assert "distances" not in plain and "networks" not in plain["settings"]
    assert plain["means"] == record["means"]
    pairs = evaluate(tmp_path / "p", *words[:3], *PREDICTION, "--network", squeezenet)
    assert pairs["distances"][0]["methods"].keys() == {
        "model", "hold", "blur", "oracle", "another_seed",
    }  # fmt: skip


def test_a_transfer_has_no_truth_but_sets_and_leakage(
    phantom: Path, squeezenet: str, tmp_path: Path
) -> None:
    bundle = make_toy_bundle(tmp_path / "toy", 64)
    words = ["--data", phantom, "--task", "transfer", "--split", "all", "--max-frames", 4]
    record = evaluate(tmp_path / "r", bundle, *words, "--network", squeezenet)
    for pair in record["pairs"]:
        assert pair["source_subject"] != pair["driving_subject"] and pair["driven"] == 4
        assert pair["methods"].keys() == {"model", "absolute"}
        assert pair["aligned_by"] == "nothing"
    assert [pair["source"] for pair in record["pairs"]] == [
        f"clips/{name}.mkv" for name in SUBJECTS
    ]
    # By the whole names: clips in several folders may be called alike.
    assert record["pairs"][0]["pair"].startswith("clips-s0.mkv__clips-s")
    assert record["means"]["pairs"] == 4 and set(record["groups"]) == {"all", "heart", "pelvic"}
    row = record["distances"][0]
    assert row["methods"].keys() == {"model", "absolute", "hold"}
    assert (row["frames"], row["real_frames"]) == (16, 16)
    few = evaluate(tmp_path / "few", bundle, *words, "--max-pairs", 2)
    assert len(few["pairs"]) == 2 and "--max-pairs 2" in few["command"]
    assert sorted(path.name[:3] for path in (tmp_path / "few" / "strips").iterdir()) == [
        "000",
        "001",
    ]


@pytest.mark.parametrize(
    ("picture", "leaks"), [(copy, True), (lambda source, frame: source, False)]
)
def test_a_copy_leaks_in_a_transfer(
    picture: Any, leaks: bool, monkeypatch: pytest.MonkeyPatch, phantom: Path, tmp_path: Path
) -> None:
    @contextmanager
    def opened(path: Path, threads: int | None = None) -> Iterator[Candidate]:
        yield candidate_of(Fake(picture))

    monkeypatch.setattr(run, "open_candidate", opened)
    words = ["x", "--data", phantom, "--task", "transfer", "--max-frames", 3]
    record = evaluate(tmp_path / "r", *words)
    assert record["means"]["methods"]["model"]["leaks"] == leaks
    assert "absolute" not in record["means"]["methods"]  # the same motion twice
    assert record["settings"]["alignment"] == "none"


def test_a_detection_is_of_the_names_that_the_model_learned(phantom: Path, tmp_path: Path) -> None:
    checkpoint = lively_checkpoint("ours-p", SMALL)
    checkpoint.supervised_names = [*NAMES][::-1]
    checkpoint.save(tmp_path / "checkpoint.pt")
    words = ["--data", phantom, "--task", "detection", "--split", "all", "--max-frames", 2]
    record = evaluate(tmp_path / "r", tmp_path / "checkpoint.pt", *words)
    assert record["means"]["all"]["clips"] == len(SUBJECTS) and set(record["points"]) == set(NAMES)
    errors = record["means"]["all"]["errors"]
    assert errors["model"] > errors["constant"] > 0, "it is untrained"
    assert record["means"]["all"]["share"]["model"] > 1


def test_the_exact_motion_is_that_of_the_region_that_was_found(
    phantom: Path, tmp_path: Path
) -> None:
    bundle = make_toy_bundle(tmp_path / "toy", 64)
    words = ["--data", phantom, "--max-frames", 2, "--crop", "auto"]
    record = evaluate(tmp_path / "r", bundle, *words)
    assert all(clip["methods"]["oracle"]["l1_ratio"] < 0.5 for clip in record["clips"])
