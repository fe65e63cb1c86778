"""The plan of a table: strictly read, and the commands that it stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sonomime.runtime.support.errors import ConfigError
from sonomime.training.scale import load_scaled
from sonomime.training.table.plan import cells, read_plan

DIGEST = "0123456789abcdef" * 4
PLAN = """
rows = [{name = "fomm"}, {name = "soft", preset = "ours-ptg", set = ["model.upsample=bilinear"]},
        {name = "lite"}, {name = "own", preset = "own.toml"}]
seeds = [3, 5]
size = 128
width = 0.25
data = ["clips"]
options = ["--crop", "auto", "--from", "old.pt"]
set = ["train.max_steps=40"]
[[families]]
name = "keypoints"
set = ["loss.perceptual_network=squeezenet", "loss.perceptual_weights=w.pth"]
[[evaluations]]
name = "phantom"
task = "prediction"
data = ["p", "q"]
options = ["--max-pairs", "2", "--network", "a=w.pth,x.pth@DIGEST"]
""".replace("DIGEST", DIGEST)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "squeezenet").touch()  # is called like a setting's value, which is no path
    (tmp_path / "own.toml").write_text("[train]\nlearning_rate = 1e-3\nmax_steps = 9\n")
    path = tmp_path / "table.toml"
    path.write_text(PLAN)
    return path


def test_a_plan_is_a_list_of_commands(plan: Path) -> None:
    beside = plan.parent
    found = cells(read_plan(plan), beside, beside / "out")
    assert [(c.row, c.seed) for c in found] == [
        (row, seed) for seed in (3, 5) for row in ("fomm", "soft", "lite", "own")
    ]
    first = found[0]
    run = beside / "out/rows/fomm/seed3/run"
    assert list(first.train) == [
        "train", "fomm", "--data", str(beside / "clips"), "-o", str(run),
        "--size", "128", "--width", "0.25", "--crop", "auto", "--from", str(beside / "old.pt"),
        "--set", "train.max_steps=40", "--set", "loss.perceptual_network=squeezenet",
        "--set", f"loss.perceptual_weights={beside / 'w.pth'}", "--set", "train.seed=3",
    ]  # fmt: skip
    assert list(first.evaluate["phantom"]) == [
        "evaluate", str(run / "checkpoint.pt"), "--data", str(beside / "p"), str(beside / "q"),
        "--task", "prediction", "-o", str(beside / "out/rows/fomm/seed3/phantom"),
        "--max-pairs", "2", "--network", f"a={beside / 'w.pth'},{beside / 'x.pth'}@{DIGEST}",
    ]  # fmt: skip
    by_row = {cell.row: cell for cell in found}
    assert "model.upsample=bilinear" in by_row["soft"].train
    assert not any("perceptual" in word for word in by_row["lite"].train)
    assert by_row["own"].train[1] == str(beside / "own.toml")
    assert {cell.steps for cell in found} == {40}


def test_a_row_s_settings_may_need_those_of_its_family(plan: Path) -> None:
    coarse = 'name = "matching"\nset = ["model.matcher.stiff=8", "model.matcher.shading=8"]'
    text = PLAN.replace('{name = "lite"}', '{name = "lite", set = ["model.matcher.grid=8"]}')
    plan.write_text(text.replace("[[evaluations]]", f"[[families]]\n{coarse}\n[[evaluations]]"))
    by_row = {cell.row: cell for cell in cells(read_plan(plan), plan.parent, plan.parent)}
    assert {"model.matcher.grid=8", "model.matcher.stiff=8"} < set(by_row["lite"].train)


def test_a_row_s_own_settings_may_make_it_fit_the_plan_s_size(plan: Path) -> None:
    sets = 'set = ["model.keypoints.depth=3", "model.motion.depth=3"]'
    text = PLAN.replace("size = 128", "size = 64").replace("width = 0.25", "")
    rows = text[text.index("rows") : text.index("seeds")]
    plan.write_text(text.replace(rows, f'rows = [{{name = "fomm", {sets}}}]\n'))
    assert "64" in cells(read_plan(plan), plan.parent, plan.parent)[0].train


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("seeds = [3, 5]", "seeds = [3, 3]", "seeds"),
        ("seeds = [3, 5]", "seeds = []", "seeds"),
        ('{name = "fomm"}', '{name = "soft"}', "soft"),
        ('{name = "fomm"}', '{name = "a/b", preset = "fomm"}', "a/b"),
        ('{name = "fomm"}', '{name = "fomm", sets = []}', "set"),
        ("size = 128", 'baseline = "ours-p"', "ours-p"),
        ('preset = "own.toml"', 'preset = "gone.toml"', "gone.toml"),
        ("train.max_steps", "train.max_stops", "max_steps"),
        ("size = 128", "size = 100", "image_size"),
        ("train.max_steps=40", "train.epochs=2", "max_steps"),
        ("width = 0.25", "width = -1", "width"),
        ("[[evaluations]]", "[[evaluations", "TOML"),
        ("size = 128", "cases = 0", "cases"),
        ('name = "keypoints"', 'name = "keypoint"', "keypoints"),
        ('name = "phantom"', 'name = "run"', "run"),
        ('name = "phantom"', 'name = "phantom-strip"', "phantom-strip"),
        ('{name = "fomm"}', '{name = "..", preset = "fomm"}', ".."),
        ('{name = "fomm"}', '{name = "a b", preset = "fomm"}', "a b"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_trained(
    plan: Path, old: str, new: str, named: str
) -> None:
    assert PLAN.count(old)
    plan.write_text(PLAN.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        cells(read_plan(plan), plan.parent, plan.parent / "out")
    assert named in error.value.message + (error.value.hint or "")


def test_a_table_has_rows_and_evaluations(plan: Path) -> None:
    head = PLAN.partition("[[evaluations]]")[0]
    for text, named in (
        (f"evaluations = []\n{head}", "evaluations"),
        ("rows = []\nevaluations = []\nbaseline = ''\ndata = ['d']\n", "rows"),
    ):
        plan.write_text(text)
        with pytest.raises(ConfigError) as error:
            read_plan(plan)
        assert named in error.value.message


def test_what_a_cell_asks_for_does_not_hang_on_where_the_plan_lies(plan: Path) -> None:
    other = plan.parent / "other"
    other.mkdir()
    (plan.parent / "own.toml").rename(other / "own.toml")
    (plan.parent / "own.toml").symlink_to(other / "own.toml")
    here, there = (
        cells(read_plan(plan), beside, beside / "out")[0].asked for beside in (plan.parent, other)
    )
    assert here == there
    assert here["run"]["train.max_steps"] == 40 and here["run"]["data"] == ["clips"]
    assert here["phantom"]["evaluation data"] == ["p", "q"] and here["phantom"]["train.seed"] == 3
    assert "data.workers" not in here["run"] and "train.log_every" not in here["run"]


DOCS = Path(__file__).parents[3] / "docs"
EXAMPLE = (DOCS / "table.md").read_text().partition("```toml\n")[2].partition("```")[0]


@pytest.mark.parametrize(
    "path", sorted((DOCS / "results/plans").glob("*.toml")), ids=lambda p: p.stem
)
def test_plans_of_the_results_can_be_made_again(path: Path, tmp_path: Path) -> None:
    assert cells(read_plan(path), path.parent, tmp_path)


def test_the_pages_example_is_a_plan(tmp_path: Path) -> None:
    (tmp_path / "table.toml").write_text(EXAMPLE)
    assert len(cells(read_plan(tmp_path / "table.toml"), tmp_path, tmp_path)) == 16


def test_a_small_model_has_all_widths_smaller_and_the_same_depth() -> None:
    whole, small = (load_scaled("ours-ptg", [], *scale) for scale in ((None, None), (128, 0.25)))
    assert small.model.image_size == 128 and whole.model.image_size == 256
    for name in ("keypoints", "motion", "generator", "discriminator"):
        one, other = getattr(whole.model, name), getattr(small.model, name)
        assert (other.width, other.max_features) == (one.width // 4, one.max_features // 4)
    assert small.model.keypoints.depth == whole.model.keypoints.depth
    lite = load_scaled("lite", ["model.matcher.stiff=4"], 128, 0.25).model
    assert (lite.matcher.grid, lite.matcher.stiff, lite.matcher.shading) == (16, 4, 8)
    assert (lite.matcher.fine, lite.matcher.coarse, lite.corrector.width) == (8, 16, 8)
    for scale in ((8, None), (None, 0.0), (None, 17.0)):
        with pytest.raises(ConfigError):
            load_scaled("lite", [], *scale)
