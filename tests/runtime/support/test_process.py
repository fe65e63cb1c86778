"""Signals that end a process."""

from __future__ import annotations

import signal

import pytest

from sonomime.runtime.support.process import Terminated, terminable


def test_native_code_that_makes_ctrl_c_of_any_signal_does_not_hide_which_one_it_was() -> None:
    with pytest.raises(Terminated) as caught, terminable():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None
    assert caught.value.exit_code == 143
    with pytest.raises(KeyboardInterrupt) as interrupted, terminable():
        raise KeyboardInterrupt
    assert interrupted.type is KeyboardInterrupt
