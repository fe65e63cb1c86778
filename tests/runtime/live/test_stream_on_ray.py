"""A live stream on a Ray cluster that loses the node which makes the frames; `stream --ray`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
from ray_cluster import MARKS, run

from sonomime.runtime.live.showing import LOST
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.still import SAMPLES

pytestmark = MARKS
TESTS = Path(__file__).parents[2]


def test_the_session_is_back_after_its_node_was_lost(
    displacement_toy: Path, tmp_path: Path
) -> None:
    script, report = Path(__file__).with_name("stream_on_ray.py"), tmp_path / "report.json"
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, script, displacement_toy, report]
    code, output, errors = run(command, PYTHONPATH=path)
    assert code == 0 and output == "", errors
    seen = json.loads(report.read_text())
    print(json.dumps(seen | {"numbers": len(seen["numbers"]), "same": sum(seen["same"])}))
    assert (seen["held"], seen["held_source"], seen["lost"]) == (LOST, "other", 1)
    assert seen["back_source"] == "other" and seen["alignment"].startswith("aligned by 1")
    assert seen["numbers"] == list(range(len(seen["numbers"])))
    assert len(seen["same"]) >= 10 and all(seen["same"])
    assert LOST in errors


def test_a_stream_on_ray_shows_what_one_of_this_machine_does(tmp_path: Path) -> None:
    words = ["stream", "--source", SAMPLES / "still.png", "--driving", SAMPLES / "driving.mp4"]
    words += ["--unpaced", "--backend", "cpu", "--threads", "1", "--json", "--record"]
    clips = []
    for name, more in (("here.mkv", []), ("ray.mkv", ["--ray", "local"])):
        command = [sys.executable, "-m", "sonomime.cli", *words, tmp_path / name, *more]
        code, output, errors = run(command)
        assert code == 0, errors
        assert all("state" in json.loads(line) for line in output.splitlines())
        clips.append(np.stack([frame.copy() for _, _, frame in open_source(tmp_path / name)]))
    assert np.array_equal(*clips)
