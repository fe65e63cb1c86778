"""Make an int8 bundle: convolutions in 8 bits, where that is exact enough and faster.

Activations are unsigned, weights signed with a scale a channel, both as QDQ operators in the graph
(static quantization, calibrated on training clips). Weights keep to 7 bits: processors without VNNI
add two products in 16 bits, which overflows with 8 (displacements were half wrong). What is not a
convolution stays float32, coordinates with it; so do the convolutions that cost most, as measured.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..runtime.backends.ort import OrtCpuBackend
from ..runtime.bundle.bundle import Bundle
from ..runtime.bundle.manifest import StageFile
from ..runtime.fastest import candidates, compare, open_session
from ..runtime.golden import agreement, golden_frame
from ..runtime.support.atomic_files import atomic_folder
from ..runtime.support.errors import ConfigError, ExportError
from ..runtime.support.process import import_or_explain
from ..runtime.support.progress import progress
from .bundle import MODEL_CARD
from .int8_check import Checked, Checks, ClipPart, Clips
from .rebundle import rebundle

log = logging.getLogger("sonomime")

LEAST_GAIN = 1.25  # times as fast as the best float engine
ALLOWED = 3  # dB of the golden frame, less than here: processors add up in other orders
FEWEST = 3  # convolutions of a stage that is worth it
FLOAT = "keep the float bundle"
CURE = 'pip install "sonomime[cpu,train]"'

Inputs = Sequence[Mapping[str, Any]]
"""What a stage is given, by tensor name, for several frames."""
Conv = tuple[str, str]
"""A stage's name, and a convolution's."""


@dataclass
class Quantized:
    """What came of it.

    Attributes:
        stages: by name, how many `convolutions` it has, and how many of them are `int8`.
        checked: against the float bundle, on clips that were not calibrated on.
        milliseconds: of a frame, by engine and precision.
        gain: best float time / best int8 time.
    """

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    checked: Checked | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    gain: float = 0.0


def quantize_bundle(
    bundle: Bundle, clips: Clips, out: Path, threads: int, for_another_machine: bool = False
) -> Quantized:
    """Write an int8 bundle beside a float one, or nothing.

    Args:
        for_another_machine: keep it also where it is not LEAST_GAIN times as fast here.

    Raises:
        ConfigError: the bundle is not float32.
        BackendError: onnx or onnxruntime is not installed.
        ExportError: it is not exact enough, or not fast enough.
        OutputError: the folder is not empty, or cannot be written.
    """
    if bundle.manifest.precision != "fp32":
        what = f"bundle {bundle.manifest.name!r} holds {bundle.manifest.precision} numbers"
        raise ConfigError(what, "quantize a bundle that was exported in fp32")
    for module in ("onnx", "onnxruntime.quantization"):
        import_or_explain(module, CURE)
    found = Quantized()
    with atomic_folder(out) as final, tempfile.TemporaryDirectory() as folder:
        place, checks = Path(folder), Checks(bundle, clips.checked, threads)
        inputs = record(bundle, clips.calibrated, threads)
        ranked = _ranked(bundle, inputs, Checks(bundle, clips.checked[::4], threads), place)
        if not ranked:
            raise ExportError("no stage has convolutions that are worth it", FLOAT)
        few, many, made = 0, len(ranked) + 1, dict[str, bytes]()
        while many - few > 1:  # as many of the first ones as are exact enough
            count = (few + many) // 2
            tried = _made(bundle, inputs, ranked[:count])
            trial = rebundle(bundle, place / f"first {count}", tried, "int8")
            checked = checks.compare(trial)
            log.info("%d of %d convolutions: %s", count, len(ranked), checked.said)
            if checked.passes:
                few, made, best, found.checked = count, tried, trial, checked
            else:
                many = count
        if not made:
            raise ExportError(f"nothing is exact enough: {checked.said}", FLOAT)
        chosen = ranked[:few]
        for stage in inputs:
            every = [conv for name, conv in ranked if name == stage]
            done = [conv for name, conv in chosen if name == stage]
            found.stages[stage] = {"convolutions": len(every), "int8": len(done)}
        with closing(open_session(best, "ort-cpu", threads)) as session:
            golden = agreement(golden_frame(session, best), best).psnr_db
        least = float(int(min(golden, 60.0)) - ALLOWED)
        _time(bundle, rebundle(bundle, place / "best", made, "int8", least), threads, found)
        if found.gain < LEAST_GAIN and not for_another_machine:
            times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in found.milliseconds.items())
            raise ExportError(
                f"int8 is {found.gain:.2f} times as fast here, {LEAST_GAIN} are asked for: {times}",
                f"{FLOAT}; --for-another-machine keeps the int8 bundle all the same",
            )
        rebundle(bundle, final, made, "int8", least, _card(bundle, found))
    return found


def _ranked(
    bundle: Bundle, inputs: Mapping[str, Inputs], checks: Checks, place: Path
) -> list[Conv]:
    """All convolutions, first those that cost least when they alone are int8."""
    every = [
        (stage.name, conv) for stage in bundle.manifest.stages if stage.name in inputs
        for conv in convolutions(bundle, stage)
    ]  # fmt: skip
    costs = {}
    for number, each in enumerate(progress(every, label="measuring convolutions")):
        few = {name: given[::11] for name, given in inputs.items()}
        trial = rebundle(bundle, place / str(number), _made(bundle, few, [each]), "int8")
        costs[each] = checks.compare(trial).cost
    return sorted(every, key=costs.__getitem__)


def _made(bundle: Bundle, inputs: Mapping[str, Inputs], chosen: Sequence[Conv]) -> dict[str, bytes]:
    """The stages of the chosen convolutions, by their names."""
    stages = {stage.name: stage for stage in bundle.manifest.stages}
    names = {name: [conv for stage, conv in chosen if stage == name] for name in inputs}
    return {
        name: quantized(bundle, stages[name], inputs[name], convs)
        for name, convs in names.items() if convs
    }  # fmt: skip


def record(
    bundle: Bundle, clips: Iterable[ClipPart], threads: int
) -> dict[str, list[dict[str, Any]]]:
    """What each per-frame or observing stage with enough convolutions is given, clip by clip."""
    names = {
        stage.name for stage in bundle.manifest.stages
        if stage.role in ("observe", "frame") and len(convolutions(bundle, stage)) >= FEWEST
    }  # fmt: skip
    recorder = _Recorder(bundle, threads, names)
    for clip in progress(list(clips), label="calibrating"):
        for _ in clip.play(bundle, recorder, recorder.next_frame):
            pass
    return recorder.inputs


class _Recorder(OrtCpuBackend):
    """Keeps what stages are given."""

    def __init__(self, bundle: Bundle, threads: int, names: set[str]) -> None:
        super().__init__(bundle, threads)
        self.inputs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self._takes = {stage.name: stage.inputs for stage in bundle.manifest.stages}
        self._is_on = False

    def next_frame(self, is_chosen: bool) -> None:
        self._is_on = is_chosen

    def run(self, stage: str) -> None:
        if self._is_on and stage in self.inputs:
            given = {tensor.name: self.read(tensor.name) for tensor in self._takes[stage]}
            self.inputs[stage].append(given)
        super().run(stage)


def convolutions(bundle: Bundle, stage: StageFile) -> list[str]:
    """Names of a stage's convolutions, in their order; not of those with one output, which add
    squares up or blur."""
    import onnx

    graph = onnx.load_from_string(bundle.read(stage.file)).graph
    outputs = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    return [
        node.name for node in graph.node
        if node.op_type == "Conv" and outputs.get(node.input[1], 1) > 1
    ]  # fmt: skip


def quantized(bundle: Bundle, stage: StageFile, inputs: Inputs, chosen: Sequence[str]) -> bytes:
    """A stage's ONNX file, the chosen convolutions in int8."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quiet = logging.getLogger().level
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        try:
            logging.getLogger().setLevel(logging.ERROR)  # it advises on the root logger
            quantize_static(
                onnx.load_from_string(bundle.read(stage.file)), path, _Reader(inputs),
                quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                nodes_to_quantize=list(chosen),
            )  # fmt: skip
        finally:
            logging.getLogger().setLevel(quiet)
        return path.read_bytes()


class _Reader:
    """Inputs one by one, as the calibration asks for them."""

    def __init__(self, inputs: Inputs) -> None:
        self._left = iter(inputs)

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._left, None)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Part of the interface; all are given at once."""


def _time(bundle: Bundle, trial: Bundle, threads: int, found: Quantized) -> None:
    pairs = [(each, engine) for each in (bundle, trial) for engine in candidates(each)]
    taken = compare(pairs, threads)
    found.milliseconds = {f"{e.backend} {e.precision}": 1000 * s for e, s in taken.items()}
    best = [
        min(s for e, s in taken.items() if (e.precision == "int8") is in_int8)
        for in_int8 in (False, True)
    ]
    found.gain = best[0] / best[1]


def _card(bundle: Bundle, found: Quantized) -> dict[str, bytes]:
    """The model card, with what was done to the weights."""
    assert found.checked is not None
    there = any(each.file == MODEL_CARD for each in bundle.manifest.files)
    before = bundle.read(MODEL_CARD).decode() if there else f"# {bundle.manifest.name}\n"
    rows = "\n".join(
        f"| {name} | {row['int8']} of {row['convolutions']} |" for name, row in found.stages.items()
    )  # fmt: skip
    times = "; ".join(f"{name} {ms:.1f} ms" for name, ms in found.milliseconds.items())
    said = f"""
## 8 bits

Convolutions were made int8 (static, a scale a channel, weights of 7 bits) from a float bundle with
digest {bundle.digest[:12]}.

| stage | convolutions in int8 |
|---|---|
{rows}

{found.checked.said[0].upper()}{found.checked.said[1:]}.
A frame where it was made: {times}.
"""
    return {MODEL_CARD: (before.rstrip() + "\n" + said).encode()}
