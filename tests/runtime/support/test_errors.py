"""Errors carry a message, a hint and an exit code; a failed write has its own hint."""

from __future__ import annotations

import errno
import pickle

import pytest

from sonomime.runtime.support import errors

EXIT_CODES = {
    "SonomimeError": 1,
    "ConfigError": 2,
    "BundleError": 3,
    "CheckpointError": 3,
    "BackendError": 4,
    "ExportError": 5,
    "InputError": 6,
    "UnsupportedFormat": 6,
    "OutputError": 7,
}


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


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (errno.ENOSPC, "space"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "limit"),
        (errno.EROFS, "another place"),
    ],
)
def test_a_failed_write_names_the_file_and_what_to_do(code: int, word: str) -> None:
    cause = OSError(code, "system's words")
    with pytest.raises(errors.OutputError) as caught, errors.output_errors("out.mp4"):
        raise cause
    assert "out.mp4" in caught.value.message and "system's words" in caught.value.message
    assert word in caught.value.hint
    assert caught.value.__cause__ is cause


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(ValueError, match="mine"), errors.output_errors("out.mp4"):
        raise ValueError("mine")
