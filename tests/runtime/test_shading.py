"""The option `shading`: a share of the control `shade`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from arithmetic_chain import CHAIN, Arithmetic, tensor

from sonomime import cli
from sonomime.runtime import Animator
from sonomime.runtime.bundle.manifest import Chain, ControlInput
from sonomime.runtime.options import Shading
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import ConfigError


def shading_chain() -> Chain:
    """The arithmetic chain with the control, whose default is not what `full` sets."""
    shade = ControlInput("shade", 0.25, (0.0, 1.0), "", "share of the shading")
    stages = tuple(
        replace(stage, inputs=(*stage.inputs, tensor("shade", 1)))
        if stage.name == "transfer"
        else stage
        for stage in CHAIN.stages
    )
    return replace(CHAIN, stages=stages, controls=(*CHAIN.controls, shade))


@pytest.fixture
def session() -> Iterator[Session]:
    chain = shading_chain()
    yield Session(chain, Arithmetic(chain))


@pytest.mark.parametrize(("shading", "share"), [("off", 0.0), ("low", 0.5), ("full", 1.0)])
def test_shading_sets_the_control(session: Session, shading: Shading, share: float) -> None:
    with Animator(session, shading=shading) as animator:
        assert animator.read("shade")[0] == share


def test_it_is_full_unless_said_otherwise(session: Session) -> None:
    with Animator(session) as animator:
        assert animator.read("shade")[0] == 1


@pytest.mark.parametrize("shading", ["off", "low"])
def test_a_model_without_the_control_cannot_lessen_it(shading: Shading) -> None:
    with pytest.raises(ConfigError, match="shading") as caught:
        Animator(Session(CHAIN, Arithmetic()), shading=shading)
    assert caught.value.hint
    Animator(Session(CHAIN, Arithmetic()), shading="full").close()


def test_a_word_that_is_none_of_them_is_refused(session: Session) -> None:
    with pytest.raises(ConfigError):
        Animator(session, shading="half")  # type: ignore[arg-type]


def test_the_command_line_refuses_it_before_anything_is_written(
    toy_bundle: Path, tmp_path: Path
) -> None:
    words = ["a.png", "b.mp4", "-o", str(tmp_path / "out"), "--bundle", str(toy_bundle)]
    assert cli.main(["animate", *words, "--shading", "off"]) == ConfigError.exit_code
    assert not list(tmp_path.iterdir())
