"""The engines of the CPU: what OpenVINO makes, and which one `auto` takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonomime.runtime import Animator, fastest
from sonomime.runtime.backends import open_backend
from sonomime.runtime.backends.ort import OrtCpuBackend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.fastest import Engine, candidates, compare, open_session
from sonomime.runtime.golden import Agreement, agreement, golden_frame
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.stills import read_image
from sonomime.runtime.still import SAMPLES
from sonomime.runtime.support.atomic_files import locked
from sonomime.runtime.support.errors import BackendError, ConfigError

ORT, OV, HALF = Engine("ort-cpu", "fp32"), Engine("openvino", "fp32"), Engine("openvino", "bf16")


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both engines count as installed, and the cache is empty."""
    monkeypatch.setattr(fastest, "installed", lambda module: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def frames_of(backend: str, count: int) -> list[Any]:
    driving = [frame.image for frame in open_source(SAMPLES / "driving.mp4")][:count]
    with Animator.open(backend=backend, threads=1) as animator:
        animator.set_source(read_image(SAMPLES / "still.png"))
        return [animator.animate(frame) for frame in driving]


def test_openvino_makes_the_same_frames(toy_bundle: Path) -> None:
    pytest.importorskip("openvino")
    for folder in (None, toy_bundle):
        bundle = Bundle.open(folder)
        session = open_session(bundle, "openvino", threads=1)
        assert session.backend.name == "openvino"
        assert agreement(golden_frame(session, bundle), bundle).psnr_db >= 55
        session.close()
    pairs = zip(frames_of("openvino", 6), frames_of("cpu", 6), strict=True)
    assert max(int(np.abs(a.astype(int) - b).max()) for a, b in pairs) <= 1


def test_openvino_reports_to_nobody(toy_bundle: Path) -> None:
    pytest.importorskip("openvino")
    script = """if True:
        import sys
        from sonomime.runtime import Animator
        with Animator.open(sys.argv[1], "openvino"):
            print([name for name in sys.modules if "telemetry" in name or name.endswith(".ovc")])
    """
    words = [sys.executable, "-c", script, str(toy_bundle)]
    assert subprocess.check_output(words, text=True).strip() == "[]"


def test_onnxruntime_reports_to_nobody(toy_bundle: Path, tmp_path: Path) -> None:
    script = """if True:
        import sys
        from sonomime.runtime import Animator
        with Animator.open(sys.argv[1], "cpu"):
            pass
    """
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    asked = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.check_call([sys.executable, "-c", script, str(toy_bundle)], env=asked | places)
    # What it has not sent yet lies in a file there, with a number for this machine.
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name]


def test_what_cannot_be_computed_is_refused(toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    for backend, precision in (
        ("cpu", "bf16"), ("cpu", "fp16"), ("openvino", "int8"), ("auto", "int8"), ("cpu", "fp8"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            open_session(bundle, backend, threads=1, precision=precision)
        assert caught.value.hint
    with pytest.raises(ConfigError):
        open_session(bundle, "openvino", device=0)
    open_session(bundle, "cpu", threads=1, precision="fp32").close()


def test_a_cpu_without_bf16_is_an_error_and_with_it_the_golden_frame_decides(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    bundle = Bundle.open(toy_bundle)
    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in able:
        with pytest.raises(BackendError):
            open_session(bundle, "openvino", threads=1, precision="bf16")
    # Played by the other engine, which is exact.
    monkeypatch.setattr(fastest, "open_backend", lambda *args: OrtCpuBackend(bundle, 1))
    session = open_session(bundle, "auto", threads=1, precision="bf16")
    assert not session.has_reference, "that of the golden frame is forgotten"
    session.close()
    monkeypatch.setattr(fastest, "agreement", lambda *args: Agreement(9, 44.9))
    with pytest.raises(BackendError, match=r"44\.9"):
        open_session(bundle, "openvino", threads=1, precision="bf16")


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({ORT: 1.0, OV: 0.96, HALF: 0.97}, ORT),  # not worth the slower start
        ({ORT: 1.0, OV: 0.9, HALF: 0.8}, HALF),
        ({ORT: 1.0, OV: 0.7}, OV),  # bf16 has not passed
        ({OV: 1.0}, OV),
    ],
)
def test_auto_takes_the_fastest_and_keeps_the_answer(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, both: None, tmp_path: Path,
    seconds: Mapping[Engine, float], best: Engine,
) -> None:  # fmt: skip
    bundle, asked = Bundle.open(toy_bundle), []

    def played(pairs: list[Any], threads: int) -> Mapping[Engine, float]:
        asked.append(threads)
        assert pairs == [(bundle, engine) for engine in (ORT, OV, HALF)]
        return seconds

    monkeypatch.setattr(fastest, "compare", played)
    monkeypatch.setattr(fastest.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    cache, engines = tmp_path / "cache" / "sonomime" / "fastest.json", [ORT, OV, HALF]

    def ask(threads: int) -> Engine:
        return fastest.fastest(bundle, engines, threads)

    assert ask(1) == ask(1) == best
    assert asked == [1] and len(json.loads(cache.read_text())) == 1
    ask(2)
    assert asked == [1, 2] and len(json.loads(cache.read_text())) == 2
    for damaged in ("{", "[]", '{"x": 3}', json.dumps(dict.fromkeys(json.loads("{}"), 1))):
        cache.write_text(damaged)
        assert ask(1) == best
    assert asked == [1, 2] + [1] * 4
    # Who comes second does not compare, nor does a busy machine.
    cache.unlink()
    with locked(cache.parent / "fastest"):
        assert ask(1) == ORT
    monkeypatch.setattr(fastest.os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    assert ask(1) == ORT and not cache.exists()
    assert len(asked) == 6


def test_a_precision_that_was_asked_for_is_the_one_that_is_used(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, both: None
) -> None:
    bundle, opened = Bundle.open(toy_bundle), []
    monkeypatch.setattr(fastest, "open_on_gpu", lambda *args: None)
    monkeypatch.setattr(fastest.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(fastest, "compare", lambda pairs, threads: {e: 1.0 for _, e in pairs[-1:]})

    def played(name: str, bundle: Bundle, threads: int, device: Any, precision: str) -> Any:
        opened.append((name, precision))
        if name == "openvino" and len(opened) == 3:
            raise BackendError("it was removed")
        return OrtCpuBackend(bundle, 1)

    monkeypatch.setattr(fastest, "open_backend", played)
    for precision in ("fp32", None, None):
        open_session(bundle, threads=1, precision=precision).close()
    # Without one it is the fastest, which may be bf16. An engine that was removed is passed over.
    assert opened == [OV, HALF, HALF, ORT]


def test_a_broken_engine_is_an_error_of_the_backend(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")

    def broken() -> None:
        raise RuntimeError("no plugin")

    monkeypatch.setattr(openvino, "Core", broken)
    with pytest.raises(BackendError, match="no plugin"):
        open_session(Bundle.open(toy_bundle), "openvino", threads=1)


def test_engines_that_fail_are_passed_over(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, both: None
) -> None:
    bundle = Bundle.open(toy_bundle)
    monkeypatch.setattr(fastest, "SECONDS", 0.0)

    def opened(name: str, *more: Any) -> Any:
        if name == "openvino":
            raise BackendError("not here")
        return open_backend("ort-cpu", bundle, 1)

    monkeypatch.setattr(fastest, "open_backend", opened)
    every = [(bundle, engine) for engine in candidates(bundle)]
    assert compare(every, 1).keys() == {ORT}
    with pytest.raises(BackendError, match="not here"):
        compare(every[1:], 1)
    monkeypatch.setattr(fastest, "open_on_gpu", lambda *args: None)
    session = open_session(bundle, threads=1)
    assert session.backend.name == "ort-cpu"
    session.close()
