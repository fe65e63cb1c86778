"""Whose folder it is, and that one alone writes there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sonomime.runtime.support.errors import ConfigError, OutputError
from sonomime.training.phantom.folder import alone, claim, refuse_other

SETTINGS: dict[str, Any] = {"anatomy": "pelvic", "seed": 3, "frames": 10, "part": {"depth": 80.0}}


def test_a_claimed_folder_goes_on_with_the_same_settings_only(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "phantom"
    refuse_other(folder, SETTINGS)
    assert not folder.parent.exists()
    claim(folder, SETTINGS)
    assert json.loads((folder / "phantom.json").read_text()) == SETTINGS
    refuse_other(folder, SETTINGS)
    claim(folder, SETTINGS)
    other = {**SETTINGS, "seed": 4, "part": {"depth": 70.0}}
    with pytest.raises(ConfigError) as caught:
        claim(folder, other)  # a run that began while another made the folder its own
    assert "seed 3, not 4; part.depth 80.0, not 70.0" in caught.value.message
    with pytest.raises(ConfigError, match=r"subject \(none\), not a"):
        refuse_other(folder, {**SETTINGS, "subject": "a"})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"\\ud800', "\xff", "[" * 100_000])
def test_a_damaged_phantom_json_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "phantom.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="is damaged") as caught:
        refuse_other(tmp_path, SETTINGS)
    assert "-o" in caught.value.hint


def test_other_peoples_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("mine")
    with pytest.raises(OutputError, match="holds something that is no phantom"):
        refuse_other(tmp_path, SETTINGS)
    with pytest.raises(OutputError, match="there is a file of that name"):
        refuse_other(tmp_path / "clips.csv", SETTINGS)
    with pytest.raises(OutputError, match="cannot write"):
        claim(tmp_path / "clips.csv" / "below", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["clips.csv"]


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with (
        alone(tmp_path),
        pytest.raises(OutputError, match="another sonomime is writing there"),
        alone(tmp_path),
    ):
        pytest.fail("let in")
    with alone(tmp_path):
        pass


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    for name in ("clips", "displacement"):
        (tmp_path / name).mkdir()
    left = [
        tmp_path / "clips" / ".a.0123abcd.part.mkv",
        tmp_path / "displacement" / ".a.0123abcd.part.npz",
        tmp_path / ".clips.0123abcd.part.csv",
    ]
    mine = [tmp_path / "clips" / ".hidden", tmp_path / "clips" / "a.part.mkv"]
    for path in (*left, *mine):
        path.touch()
    with pytest.raises(KeyboardInterrupt), alone(tmp_path):
        assert not any(path.exists() for path in left)
        left[0].touch()
        raise KeyboardInterrupt
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in mine)
