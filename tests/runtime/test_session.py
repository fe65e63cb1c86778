"""The chain: which stage runs when, what is kept of the reference, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from arithmetic_chain import ALIGNED, CHAIN, SEEN, SOURCE, Arithmetic, level, with_stage

from sonomime.runtime.bundle.checks import check_wiring
from sonomime.runtime.session import Session, own_places
from sonomime.runtime.support.errors import BackendError, ConfigError, InputError


@pytest.fixture
def session() -> Session:
    check_wiring(ALIGNED)
    return Session(ALIGNED, Arithmetic(ALIGNED))


def runs(session: Session) -> list[str]:
    backend: Any = session.backend
    made, backend.runs[:] = list(backend.runs), []
    return made


def test_stages_run_by_their_roles(session: Session) -> None:
    session.set_source(level(100))
    assert runs(session) == ["source"]
    session.set_reference(level(20))
    assert runs(session) == ["observe", "reference"]
    session.animate(level(30))
    assert runs(session) == ["observe", "transfer", "generator"]
    assert session.landmarks == ("level",)
    assert session.find_landmarks(level(7)).tolist() == [[7, 7, 7]]
    assert runs(session) == ["finder"]
    session.backend.view("driving_frame")[...] = 40  # it may lie there already
    session.observe()
    assert runs(session) == ["observe"] and session.read("driving_mean")[0] == 40
    session.forget_reference()
    session.animate(level(50))  # becomes it
    assert session.has_reference and session.read("reference_gap")[0] == 50 - 100


@pytest.mark.parametrize("inputs", [(SEEN, SOURCE), (SOURCE,)])
def test_a_reference_stage_runs_again_with_a_new_source(inputs: Any) -> None:
    """On what was seen of the reference frame, or on the source alone; not on the last frame."""
    session = Session(with_stage(CHAIN, "reference", inputs=inputs), Arithmetic())
    session.set_source(level(100))
    session.set_reference(level(20))
    if SEEN in inputs:
        session.animate(level(90))
    runs(session)
    session.set_source(level(50))
    assert runs(session) == ["source", "reference"]
    assert session.read("reference_gap")[0] == 20 - 50


def test_controls_have_defaults_names_and_ranges(session: Session) -> None:
    assert session.read("scale")[0] == 1
    session.set_control("scale", 2.5)
    for name, value in (("scale", 10.5), ("scale", -1), ("scale", float("nan")), ("relative", 1)):
        with pytest.raises(ConfigError):
            session.set_control(name, value)
    assert session.read("scale")[0] == 2.5
    # 0.1 is a little more in float32: a default can be read and set again.
    control = replace(CHAIN.controls[0], default=0.1, range=(0.0, 0.1))
    session = Session(replace(CHAIN, controls=(control,)), Arithmetic())
    session.set_control("scale", float(session.read("scale")[0]))


def test_a_reference_that_fails_is_no_reference(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise BackendError("out of memory")

    session.set_source(level(100))
    session.set_reference(level(20))
    with monkeypatch.context() as patch:
        patch.setitem(session.backend.stages, "reference", fails)  # type: ignore[attr-defined]
        with pytest.raises(BackendError):
            session.set_reference(level(200))
    assert not session.has_reference
    session.animate(level(30))  # becomes it
    assert session.read("reference_gap")[0] == 30 - 100


def test_what_the_chain_does_not_take_is_refused(session: Session) -> None:
    for wrong in (level(1)[0], level(1).astype(np.float32), level(1)[..., :8]):
        with pytest.raises(InputError):
            session.set_source(wrong)
    plain = Session(CHAIN, Arithmetic())
    plain.align(None)
    for call in (
        lambda: session.read("no_such_tensor"),
        lambda: session.match(level(30)),  # there is no reference
        lambda: session.align(np.zeros((1, 2, 2, 2), np.float32)),
        lambda: plain.align(np.zeros((1, 1, 1, 2), np.float32)),
        lambda: plain.find_landmarks(level(7)),
    ):
        with pytest.raises(ConfigError):
            call()


def test_a_match_is_of_the_frames_alone_and_makes_no_picture(session: Session) -> None:
    assert np.array_equal(session.read("alignment"), own_places(1, 1))
    session.align(np.full((1, 1, 1, 2), 0.25, np.float32))
    session.set_source(level(100))
    session.set_reference(level(20))
    session.animate(level(20))
    assert (session.read("displacement") == 100.25).all()
    session.set_control("scale", 3)
    runs(session)
    assert (session.match(level(60)) == 140).all() and runs(session) == ["observe", "transfer"]
    assert (session.read("alignment") == 0.25).all() and session.read("scale")[0] == 3
    assert session.read("state")[0] == 1
    session.align(None)
    assert np.array_equal(session.read("alignment"), own_places(1, 1))
