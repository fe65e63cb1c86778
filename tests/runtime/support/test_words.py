"""What is told and read as text: errors, progress, tables, names that cannot steer a terminal."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sonomime.runtime.support import errors
from sonomime.runtime.support import progress as module
from sonomime.runtime.support.errors import InputError
from sonomime.runtime.support.printable import printable
from sonomime.runtime.support.progress import progress
from sonomime.runtime.support.table import is_name, read_table, spelling_hint
from sonomime.training import commands

EXIT_CODES = {
    "SonomimeError": 1, "ConfigError": 2, "BundleError": 3, "CheckpointError": 3, "BackendError": 4,
    "ExportError": 5, "InputError": 6, "UnsupportedFormat": 6, "StreamError": 6,
    "OutputError": 7,
    "Busy": 7,
}  # fmt: skip


def test_every_error_has_its_exit_code_and_survives_the_way_between_processes() -> None:
    kinds = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.SonomimeError)
    }
    assert {name: kind.exit_code for name, kind in kinds.items()} == EXIT_CODES
    for kind in kinds.values():
        error = pickle.loads(pickle.dumps(kind("what is wrong", "what to do")))
        assert type(error) is kind and str(error) == "what is wrong"
        assert (error.message, error.hint) == ("what is wrong", "what to do")


def test_control_and_format_characters_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    for text, shown in (
        ("toy\x1b[2J", r"toy\x1b[2J"),
        ("a\r\x07\x9b", r"a\r\x07\x9b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2028\udcff", r"\u2028\udcff"),
        ("Gebärmutter 子宮\n²\u00a0\u200d", "Gebärmutter 子宮\n²\u00a0\u200d"),
    ):
        assert printable(text) == shown
    commands._say("left out: \x1b[2J")
    assert capsys.readouterr().err == "left out: \\x1b[2J\n"
    candidate = pytest.importorskip("sonomime.training.evaluation.candidate")
    assert candidate._name({"name": "train\x1b[2J"}) == r"train\x1b[2J"


def test_a_terminal_shows_a_bar_and_standard_output_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(5), label="frames")) == [0, 1, 2, 3, 4]
    output, shown = capsys.readouterr()
    last = shown.split("\r")[-1]
    assert last.startswith("frames: 100%") and "5/5" in last and last.endswith("\n")
    assert output == ""
    # The total may be unknown or too small.
    assert sum(progress(iter(range(10)))) == sum(progress(range(10), total=3)) == 45
    assert capsys.readouterr().err.count("10it") >= 2

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        list(progress(broken(), total=3))
    assert capsys.readouterr().err.endswith("\n")


@pytest.mark.parametrize(
    ("seconds", "lines"), [(0.05, []), (0.1, ["30/30"]), (1, ["10/30", "20/30", "30/30", "30/30"])]
)
def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    lines: list[str],
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for _ in progress(range(30), label="frames"):
        now[0] += seconds
    written = capsys.readouterr().err
    assert [line.split("|")[2].split()[0] for line in written.splitlines()] == lines
    assert "\r" not in written and written.isascii()


def test_tables_names_and_hints(tmp_path: Path) -> None:
    """What no test of landmarks or labels says about them."""
    path = tmp_path / "t.csv"
    path.write_text('b,a\n1,"x,y"\n', encoding="utf-8-sig")
    assert list(read_table(path, ("a", "b"))) == [(2, {"b": "1", "a": "x,y"})]
    for text, said in (
        (b"a,a,b\n", ":1: column 'a' appears twice"),
        (b"a;b\n1;2\n", ":1: unknown column 'a;b'; are the cells separated"),
        (b"a,b\n1,2,3\n", ":2: 3 cells"),
        (b"a,b\n\xff,1\n", ": not a CSV file"),
    ):
        path.write_bytes(text)
        with pytest.raises(InputError) as caught:
            list(read_table(path, ("a", "b")))
        assert f"{path}{said}" in caught.value.message and caught.value.hint
    for data, hint in (
        (b"a;b\n1;2\n", "semicolons"),
        ("a\tb\n".encode("utf-16"), "UTF-16"),
        (b"\xef\xbb\xbfa\tb\n", "tabs"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            list(read_table(path, ("a", "b")))
        assert hint in caught.value.hint
    for name in ("none.csv", "."):
        with pytest.raises(InputError):
            list(read_table(tmp_path / name, ("a", "b")))
    assert all(map(is_name, ("a", "mitral valve, left", "Schließmuskel", "左心室", "a" * 100)))
    for text in ("", " ", "a ", "a\nb", "a\x1b[2J", "a\u202eb", "\ud800", "a" * 101):
        assert not is_name(text)
    assert "'source'" in spelling_hint("sorce", ("source", "reference"))
    assert "/" in spelling_hint("clips\\a.mp4", ("clips",))
    assert "'reference'" in spelling_hint("qqq", ("source", "reference"))
