"""A bundle's stages as models of a Triton server's own engines, and an ensemble for one frame.

Here all state is the caller's: the ensemble takes what was made of source and reference, the
controls and the state before, and gives the frame and the state after. It makes the frame that
`Session.animate` makes. Sources, references and their alignment are the caller's work.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..runtime.bundle.bundle import Bundle
from ..runtime.bundle.manifest import FRAME, QUALITY, Chain, Stage, Tensor

ENSEMBLE = "sonomime_frame"

_TYPES = {"uint8": "TYPE_UINT8", "float16": "TYPE_FP16", "float32": "TYPE_FP32"}


def write_stages(bundle: Bundle, folder: Path) -> list[str]:
    """Write a model for each stage and the ensemble into `folder`; the models' names."""
    chain = bundle.manifest
    for stage in chain.stages:
        model = folder / model_name(stage)
        (model / "1").mkdir(parents=True)
        (model / "1" / "model.onnx").write_bytes(bundle.read(stage.file))
        (model / "config.pbtxt").write_text(stage_config(stage), encoding="utf-8")
    # The server wants a folder for each version, and an ensemble has no file.
    (folder / ENSEMBLE / "1").mkdir(parents=True)
    (folder / ENSEMBLE / "1" / "README").write_text("An ensemble has no file.\n", encoding="utf-8")
    (folder / ENSEMBLE / "config.pbtxt").write_text(ensemble_config(chain), encoding="utf-8")
    return [*map(model_name, chain.stages), ENSEMBLE]


def model_name(stage: Stage) -> str:
    """A stage's model; no stage is named so that it would be the ensemble."""
    return f"sonomime_stage_{stage.name}"


def taken_and_given(chain: Chain) -> tuple[list[Tensor], list[Tensor]]:
    """What the ensemble takes: all that its stages read and none of them makes. And what it gives:
    the frame, the states, what judges the frame, and what it can be composed of."""
    stages = [stage for stage in chain.stages if stage.per_frame]
    made = {tensor.name for stage in stages for tensor in stage.outputs}
    read = {tensor.name for stage in stages for tensor in stage.inputs}
    states = [pair.from_ for pair in chain.recurrent]
    layers = [] if chain.layers is None else list(vars(chain.layers).values())
    wanted = dict.fromkeys((FRAME, *states, QUALITY, *layers))
    tensors = chain.tensors()
    return (
        [tensor for name, tensor in tensors.items() if name in read - made],
        [tensors[name] for name in wanted if name in made],
    )


def stage_config(stage: Stage) -> str:
    """config.pbtxt of a stage for ONNX Runtime; a request of zeros warms it up."""
    zeros = "\n".join(
        f'  inputs {{ key: "{each.name}" value {{ {_form(each)} zero_data: true }} }}'
        for each in stage.inputs
    )
    return f"""\
# Written by `sonomime triton --stages`: the stage `{stage.name}`, role `{stage.role}`.
name: "{model_name(stage)}"
backend: "onnxruntime"
max_batch_size: 0
{_listed("input", stage.inputs)}
{_listed("output", stage.outputs)}
model_warmup [ {{
  name: "zeros"
  batch_size: 1
{zeros}
}} ]
"""


def ensemble_config(chain: Chain) -> str:
    """config.pbtxt of the ensemble; its tensors have the names that they have in the bundle."""
    taken, given = taken_and_given(chain)
    steps = "\n".join(_step(stage) for stage in chain.stages if stage.per_frame)
    carried = "".join(
        f"# After each frame give `{pair.from_}` back as `{pair.to}`; the first is zero.\n"
        for pair in chain.recurrent
    )
    return f"""\
# Written by `sonomime triton --stages`. docs/triton.md says what the caller does.
{carried}\
name: "{ENSEMBLE}"
platform: "ensemble"
max_batch_size: 0
{_listed("input", taken)}
{_listed("output", given)}
ensemble_scheduling {{
{steps}
}}
"""


def _step(stage: Stage) -> str:
    maps = [
        f'    {kind}_map {{ key: "{each.name}" value: "{each.name}" }}'
        for kind, tensors in (("input", stage.inputs), ("output", stage.outputs))
        for each in tensors
    ]
    first = f'  step {{\n    model_name: "{model_name(stage)}"\n    model_version: -1'
    return "\n".join([first, *maps, "  }"])


def _listed(kind: str, tensors: Iterable[Tensor]) -> str:
    lines = ",\n".join(f'  {{ name: "{each.name}" {_form(each)} }}' for each in tensors)
    return f"{kind} [\n{lines}\n]"


def _form(tensor: Tensor) -> str:
    return f"data_type: {_TYPES[tensor.dtype]} dims: [ {', '.join(map(str, tensor.shape))} ]"
