"""Strict tables: rows with their line, and every fault with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sonomime.runtime.support.errors import InputError
from sonomime.runtime.support.table import is_name, number, read_table, spelling_hint


def test_rows_come_with_their_line_in_any_order_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('b,a\n1,"x,y"\n\n2,z\n', encoding="utf-8-sig")
    assert list(read_table(path, ("a", "b"))) == [
        (2, {"b": "1", "a": "x,y"}), (4, {"b": "2", "a": "z"}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,c\n", ":1:"),
        ("a\n", ":1:"),
        ("a,a,b\n", ":1:"),
        ("a;b\n1;2\n", ":1: unknown column 'a;b'"),
        ("a,b\n1\n", ":2:"),
        ("a,b\n1,2,3\n", ":2:"),
        ("", ""),
        ('a,b\n"1,2\n', ""),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        list(read_table(path, ("a", "b")))
    assert f"{path}{line}" in caught.value.message and caught.value.hint


def test_what_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n\xff,1\n")
    for name in ("t.csv", "none.csv", "."):
        with pytest.raises(InputError):
            list(read_table(tmp_path / name, ("a", "b")))


def test_numbers_are_finite() -> None:
    assert number("here", "x", "-1.5e2") == -150
    for text in ("", "one", "nan", "inf", "1e999"):
        with pytest.raises(InputError) as caught:
            number("here", "x", text)
        assert caught.value.message.startswith("here: x")


def test_a_hint_has_the_likeliest_spelling_or_all() -> None:
    assert "'source'" in spelling_hint("sorce", ("source", "reference"))
    assert "'reference'" in spelling_hint("qqq", ("source", "reference"))
    assert spelling_hint("a", ()) != ""


def test_a_name_can_be_shown() -> None:
    assert all(map(is_name, ("a", "mitral valve, left", "Schließmuskel", "左心室", "a" * 100)))
    for text in ("", " ", "a ", "a\nb", "a\x1b[2J", "a\u202eb", "\ud800", "a" * 101):
        assert not is_name(text)
