"""A phantom and an evaluation on a Ray cluster that loses a node, and on this machine alone."""

from __future__ import annotations

import sys
from pathlib import Path

from ray_cluster import MARKS, losing_a_node, run, same

pytestmark = MARKS
HERE = [sys.executable, "-m", "sonomime.cli"]


def assert_same(one: Path, other: Path) -> None:
    names = [{each.relative_to(root) for each in root.rglob("*.*")} for root in (one, other)]
    assert names[0] == names[1] and names[0]
    assert [name for name in names[0] if not same(one / name, other / name)] == []


def test_a_lost_node_changes_no_phantom_and_no_evaluation(tmp_path: Path, repository: Path) -> None:
    phantom, alone = tmp_path / "phantom", tmp_path / "alone"
    words = ["phantom", "--subjects", "5", "--frames", "10", "--pairs", "0", "-o"]
    losing_a_node(phantom / "clips", 2, [*words, phantom])
    assert len(list(phantom.glob("clips/*.mkv"))) == 5
    code, _, errors = run([*HERE, *words, alone])
    assert code == 0, errors
    assert_same(phantom, alone)

    report, reports = tmp_path / "report", tmp_path / "on-ray"
    words = [
        "evaluate",
        repository / "runtime/default_bundle",
        "--data",
        alone,
        "--split",
        "all",
        "-o",
        report,
    ]
    losing_a_node(report / "strips", 0, [*words, "--threads", "1"])
    report.rename(reports)
    code, _, errors = run([*HERE, *words, "--threads", "1"])
    assert code == 0, errors
    assert_same(report, reports)
