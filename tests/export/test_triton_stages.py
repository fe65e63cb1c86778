"""The stages as models of a Triton server: their ensemble makes the frames that a Session makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_triton import TYPES, parse
from onnxruntime import InferenceSession
from toy_bundle import blob

from sonomime.cli import main
from sonomime.export.triton import Settings, write_repository
from sonomime.runtime import Animator
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.bundle.manifest import Role


@pytest.mark.parametrize("toy", ["toy_bundle", "displacement_toy"])
def test_the_ensemble_makes_the_sessions_frames(
    toy: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bundle = Bundle.open(request.getfixturevalue(toy))
    write_repository(bundle, tmp_path / "models", Settings(stages=True))
    server = StagesServer(tmp_path / "models")
    planes = [blob(64, 0.1 * i, 0)[None, None] for i in range(4)]
    chain = bundle.manifest
    taken = {each["name"]: each for each in server.configs["sonomime_frame"]["input"]}
    settings = {each.name: np.array([each.default], np.float32) for each in chain.controls}
    if "min_cutoff" in settings:  # smoothing, so that a state that is lost shows
        settings["min_cutoff"][0] = 1.0
    with Animator.open(bundle, backend="ort-cpu") as animator:
        session = animator.session
        session.set_source(planes[2])
        session.set_reference(planes[0])
        if "alignment" in taken:
            settings["alignment"] = session.read("alignment")
        for name in {"min_cutoff"} & settings.keys():
            session.set_control(name, 1.0)

        def run(role: Role, tensors: dict[str, Any]) -> dict[str, Any]:
            for stage in chain.of_role(role):
                given = {each.name: tensors[each.name] for each in stage.inputs}
                tensors = tensors | server.run(f"sonomime_stage_{stage.name}", given)
            return tensors

        source = run("source", {"source_image": planes[2]})
        seen = run("observe", {"driving_frame": planes[0]})
        reference = {name.replace("driving_", "reference_", 1): seen[name] for name in seen}
        kept = {name: v for name, v in {**source, **reference, **settings}.items() if name in taken}
        states = {pair.to: np.zeros(taken[pair.to]["dims"], np.float32) for pair in chain.recurrent}
        for frame in planes:
            made = server.run("sonomime_frame", {"driving_frame": frame, **kept, **states})
            np.testing.assert_array_equal(made["frame"], session.animate(frame))
            states = {pair.to: made[pair.from_] for pair in chain.recurrent}


class StagesServer:
    """Runs models and ensembles of a repository by what their config.pbtxt says."""

    def __init__(self, repository: Path) -> None:
        self.folder = repository
        folders = [each for each in repository.iterdir() if each.name != "sonomime"]
        self.configs = {each.name: parse((each / "config.pbtxt").read_text()) for each in folders}
        for name, config in self.configs.items():
            assert config["name"] == name
            if "model_warmup" in config:
                self.run(name, _zeros(config))

    def run(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        config = self.configs[name]
        _check(config["input"], given)
        if config.get("platform") == "ensemble":
            tensors = dict(given)
            for step in config["ensemble_scheduling"]["step"]:
                maps = [
                    {each["key"]: each["value"] for each in step[kind]}
                    for kind in ("input_map", "output_map")
                ]
                made = self.run(step["model_name"], {k: tensors[v] for k, v in maps[0].items()})
                tensors.update({maps[1][name]: array for name, array in made.items()})
            made = {each["name"]: tensors[each["name"]] for each in config["output"]}
        else:
            assert config["backend"] == "onnxruntime"
            session = InferenceSession(self.folder / name / "1" / "model.onnx")
            names = [output.name for output in session.get_outputs()]
            made = dict(zip(names, session.run(names, given), strict=True))
        _check(config["output"], made)
        return made


def _check(listed: list[dict[str, Any]], given: dict[str, Any]) -> None:
    assert {each["name"] for each in listed} == given.keys()
    for each in listed:
        array = given[each["name"]]
        assert list(array.shape) == each["dims"]
        assert array.dtype == TYPES[each["data_type"]]


def _zeros(config: dict[str, Any]) -> dict[str, Any]:
    (warm,) = config["model_warmup"]
    assert warm["batch_size"] == 1 and all(each["value"]["zero_data"] for each in warm["inputs"])
    return {
        each["key"]: np.zeros(each["value"]["dims"], TYPES[each["value"]["data_type"]])
        for each in warm["inputs"]
    }


def test_the_verb_says_that_these_frames_have_no_mark(
    toy_bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main(["triton", str(toy_bundle), "-o", str(tmp_path / "models"), "--stages"]) == 0
    assert "sonomime_frame gives frames without the synthetic mark" in capsys.readouterr().err
    assert (tmp_path / "models" / "sonomime_frame" / "1").is_dir()
