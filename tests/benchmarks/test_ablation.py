"""The table of an ablation: what its rows change, what they leave, and whose figures they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lively import SMALL, SMALL_LITE, lively_checkpoint, speckle
from torch import Tensor

from sonomime.benchmarks.ablation import main
from sonomime.benchmarks.variants import variants
from sonomime.cli import main as sonomime
from sonomime.runtime.media.pixels import to_planes
from sonomime.training.checkpoint import Checkpoint
from sonomime.training.config import load_config
from sonomime.training.models.matching.model import MatchingModel, both
from sonomime.training.torch_backend import open_session

from ..training.evaluation.phantoms import write_phantom

ROWS = [
    "as it is",
    "grid 8",
    "shading 0",
    "stiff 16 (texture by the whole field)",
    "no corrections",
    "no global search",
]
ALIGNED = ["landmarks", "auto", "none"]


@pytest.fixture(scope="module")
def lite() -> Checkpoint:
    return lively_checkpoint("lite", (*SMALL_LITE, "model.landmarks.count=2"))


@pytest.fixture(scope="module")
def checkpoint(lite: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    lite.save(path)
    return path


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, labels and pairs."""
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def part(checkpoint: Checkpoint, name: str) -> MatchingModel:
    """The model of a row."""
    (found,) = [row.checkpoint for row in variants(checkpoint) if row.name == name]
    model: MatchingModel = found.model()
    return model


def pictures(seed: int) -> Tensor:
    return torch.from_numpy(np.asarray(speckle(128, 1, seed)).reshape(1, 1, 128, 128)) / 255


def test_a_row_changes_one_setting_and_no_weight(lite: Checkpoint) -> None:
    rows = variants(lite)
    assert [row.name for row in rows] == [*ROWS, *(f"alignment {name}" for name in ALIGNED)]
    assert [row.alignment for row in rows] == ["given"] * len(ROWS) + ALIGNED
    own = lite.config.model.matcher
    found = [row.checkpoint.config.model.matcher for row in rows]
    assert [(m.grid, m.shading, m.stiff) for m in found[:4]] == [
        (16, 8, 8),
        (8, 8, 8),
        (16, 0, 8),
        (16, 8, 16),
    ]
    assert found[4:] == [own] * 5
    for row in rows:
        weights = row.checkpoint.model().state_dict()
        assert weights.keys() == lite.weights.keys()
        assert all(torch.equal(weights[name], lite.weights[name]) for name in weights)


def test_settings_that_must_follow_a_coarser_grid_are_named() -> None:
    rows = variants(Checkpoint(load_config("lite"), 0, {}))
    named = {row.name: row.checkpoint.config.model.matcher for row in rows}
    assert {"grid 16", "grid 8, stiff 8, shading 8", "shading 8", "shading 0"} <= named.keys()
    assert named["grid 8, stiff 8, shading 8"].shading == 8 and named["grid 16"].shading == 16


def test_without_corrections_the_source_is_warped_and_shaded_alone(lite: Checkpoint) -> None:
    whole, less = lite.model(), part(lite, "no corrections")
    source, *frames = (pictures(seed) for seed in range(3))
    with torch.no_grad():
        layers = whole.encode(source)
        _, passed = whole.match(*both(*frames, whole))
        motion = whole.move(passed.displacement)
        plain = whole.generator.uncorrected(layers, *motion, passed.shading).image()
        made = less.animate(less.encode(source), passed).frame.image()
        assert torch.equal(made, plain)
        assert not torch.equal(whole.animate(layers, passed).frame.image(), plain)


def test_without_its_global_search_a_match_starts_at_rest(lite: Checkpoint) -> None:
    frames = [pictures(seed) for seed in range(2)]
    found = {}
    with torch.no_grad():
        for name in ("as it is", "no global search"):
            model = part(lite, name)
            found[name], _ = model.match(*both(*frames, model))
    assert found["as it is"].coarse.abs().max() > 1
    near = found["no global search"]
    assert (near.coarse == 0).all() and near.fine.abs().max() > 0


def test_the_stages_have_the_changes_too(lite: Checkpoint) -> None:
    """What is judged is the chain that export writes, not the model."""
    images = [to_planes(speckle(128, 1, seed)) for seed in range(3)]
    reads = {}
    for row in variants(lite):
        if row.name in ("as it is", "grid 8", "no corrections", "no global search"):
            session = open_session(row.checkpoint)
            session.set_source(images[0])
            session.set_reference(images[1])
            frame = session.animate(images[2]).copy()
            reads[row.name] = session.read("displacement"), frame
    moved, frame = reads["as it is"]
    assert moved.shape == (1, 16, 16, 2) and reads["grid 8"][0].shape == (1, 8, 8, 2)
    assert not np.array_equal(reads["no global search"][0], moved)
    assert np.array_equal(reads["no corrections"][0], moved)
    assert not np.array_equal(reads["no corrections"][1], frame)


def test_the_table_has_the_figures_of_evaluate(
    checkpoint: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ablation.json"
    words = [str(checkpoint), "--max-frames", "2", "--max-clips", "1", "--json", str(file)]
    for option in ("--clips", "--labelled", "--pairs"):
        words += [option, str(phantom)]
    assert main(words) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines] == [
        *ROWS, *(f"alignment {name}" for name in ALIGNED),
    ]  # fmt: skip
    assert head.count("|") == 8
    assert {line.count("|") for line in lines} == {8}
    assert [line.count(" - ") for line in lines] == [0] * len(ROWS) + [4] * len(ALIGNED)
    record = json.loads(file.read_text())
    assert record["step"] == 7 and len(record["sha256"]) == 64
    rows = {row["row"]: row for row in record["rows"]}
    errors = [rows[name]["tracking"]["all"]["errors"] for name in ROWS]
    assert errors[4] == errors[0] != errors[5]  # corrections move nothing
    assert rows["alignment none"].keys() == {"row", "prediction"}

    output = tmp_path / "evaluation"
    words = ["evaluate", str(checkpoint), "--data", str(phantom), "-o", str(output)]
    words += ["--task", "prediction", "--max-frames", "2", "--max-pairs", "1"]
    assert sonomime(words) == 0
    means = json.loads((output / "results.json").read_text())["means"]
    assert means == rows["as it is"]["prediction"]


def test_only_what_has_a_folder_is_measured(
    checkpoint: Path, phantom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(checkpoint), "--labelled", str(phantom), "--max-frames", "1", "--max-clips", "1"]
    assert main(words) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head.count("|") == 3
    assert [line.split(" | ")[0].strip("| ") for line in lines] == ROWS


def test_what_cannot_be_measured_is_refused(
    checkpoint: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keypoints, empty = tmp_path / "keypoints.pt", tmp_path / "empty"
    lively_checkpoint("ours-ptg", SMALL).save(keypoints)
    empty.mkdir()
    for words, code in (
        ([checkpoint], 2),
        ([keypoints, "--clips", phantom], 2),
        ([tmp_path / "nothing.pt", "--clips", phantom], 3),
        ([checkpoint, "--clips", empty], 6),
        ([checkpoint, "--labelled", tmp_path / "nowhere"], 6),
        ([checkpoint, "--pairs", phantom / "clips"], 6),
    ):
        assert main([str(word) for word in words]) == code
        said = capsys.readouterr()
        assert said.out == "" and "error: " in said.err and "hint: " in said.err
    with pytest.raises(SystemExit):
        main([str(checkpoint), "--clips", str(phantom), "--max-frames", "0"])
