"""What a row says of what went wrong."""

from __future__ import annotations

import pytest

from sonomime.benchmarks.gpu.rows import remarks, said, spoils, trouble


class Capture:
    """As torch's: leaving it after an error raises its own."""

    def __enter__(self) -> None: ...

    def __exit__(self, *why: object) -> None:
        raise RuntimeError("operation failed due to a previous error during capture\nand more")


def caught(*, cut: bool = False) -> Exception:
    try:
        with Capture():
            raise ValueError("CUDA error 900\nand more")
    except RuntimeError as error:
        if cut:
            error.__suppress_context__ = True
        return error


def test_an_error_is_told_with_the_one_that_it_began_with() -> None:
    last = "RuntimeError: operation failed due to a previous error during capture"
    assert said(caught()) == f"{last}; it began with ValueError: CUDA error 900"
    assert said(caught(cut=True)) == last
    assert said(KeyError()) == "KeyError:"


@pytest.mark.parametrize(
    ("row", "spoilt"),
    [
        ({"agrees": False}, False),
        ({"failed": "x"}, True),
        ({"launches": {"failed": "x"}}, True),
        ({"launches": {"absent": "x"}}, False),
    ],
)
def test_what_may_stay_with_a_process(row: dict[str, object], spoilt: bool) -> None:
    assert spoils(row) is spoilt


def test_in_words() -> None:
    assert trouble({"agrees": False}) == ""
    assert trouble({"left_out": "a", "stopped": "b"}) == "stopped: b; left out: a"
    assert remarks({"gpu": {"absent": "no tool"}}) == ""
    assert remarks({"agrees": False, "gpu": {"throttled": True}}) == "  DIFFERS  THROTTLED"
