"""Errors carry a message, a hint and an exit code, and name the cure of a failed write."""

from __future__ import annotations

import errno
import pickle

import pytest

from sonomime.runtime.support import errors

EXIT_CODES = {
    "ConfigError": 2,
    "BundleError": 3,
    "CheckpointError": 3,
    "BackendError": 4,
    "ExportError": 5,
    "InputError": 6,
    "UnsupportedFormat": 6,
    "OutputError": 7,
}


@pytest.mark.parametrize(("name", "code"), EXIT_CODES.items())
def test_every_error_has_its_exit_code(name: str, code: int) -> None:
    kind = getattr(errors, name)
    error = kind("what is wrong", "what to do")
    assert isinstance(error, errors.SonomimeError)
    assert (error.exit_code, error.message, error.hint) == (code, "what is wrong", "what to do")
    assert str(error) == "what is wrong"


def test_no_error_is_forgotten_above() -> None:
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.SonomimeError)
    }
    assert kinds == {"SonomimeError", *EXIT_CODES}


def test_an_unsupported_format_is_an_input_error() -> None:
    assert issubclass(errors.UnsupportedFormat, errors.InputError)


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(errors.InputError("message", "hint")))
    assert type(error) is errors.InputError
    assert (error.message, error.hint) == ("message", "hint")


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (errno.ENOSPC, "space"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "limit"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
        (errno.EIO, "-o"),
    ],
)
def test_a_failed_write_names_the_file_and_the_cure(code: int, word: str) -> None:
    cause = OSError(code, "system's words")
    with pytest.raises(errors.OutputError) as caught, errors.output_errors("out.mp4"):
        raise cause
    assert "out.mp4" in caught.value.message
    assert "system's words" in caught.value.message
    assert word in caught.value.hint
    assert caught.value.__cause__ is cause


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(ValueError, match="mine"), errors.output_errors("out.mp4"):
        raise ValueError("mine")
