"""Text of somebody else's file cannot steer the terminal."""

from __future__ import annotations

import pytest

from sonomime.runtime.support.printable import printable
from sonomime.training import commands


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("toy\x1b[2J", r"toy\x1b[2J"),
        ("a\r\x07\x9b", r"a\r\x07\x9b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udcff", r"\udcff"),
        ("Gebärmutter 子宮\n²", "Gebärmutter 子宮\n²"),
    ],
)
def test_control_and_format_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_what_checkpoints_and_folders_say_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    held_out = pytest.importorskip("sonomime.training.evaluation.held_out")
    assert held_out._name({"name": "train\x1b[2J"}) == r"train\x1b[2J"
    commands._say("left out: \x1b[2J")
    assert capsys.readouterr().err == "left out: \\x1b[2J\n"
