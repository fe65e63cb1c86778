"""bf16 on OpenVINO: for large convolutions alone."""

from __future__ import annotations

from contextlib import closing
from io import BytesIO

import numpy as np
import pytest

from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.fastest import open_session
from sonomime.runtime.golden import agreement, golden_frame

openvino = pytest.importorskip("openvino")


@pytest.mark.parametrize("name", ["observe", "transfer", "generator"])
def test_bf16_is_for_large_convolutions_alone(name: str) -> None:
    from sonomime.runtime.backends.openvino import halve_convolutions

    bundle = Bundle.open()
    (stage,) = (each for each in bundle.manifest.stages if each.name == name)
    model = openvino.Core().read_model(BytesIO(bundle.read(stage.file)))
    halve_convolutions(model)
    types, large = [], []
    for op in model.get_ordered_ops():
        kind, given = op.get_type_name(), [each.get_element_type() for each in op.inputs()]
        if kind == "Convolution":
            types.append({each.get_type_name() for each in given})
            large.append(max(op.input(1).get_shape()[2:]) > 1)
        elif kind != "Convert":
            assert openvino.Type.bf16 not in given, op
    assert types == [{"bf16"} if each else {"f32"} for each in large]
    assert any(large)
    for port, tensor in zip(model.outputs, stage.outputs, strict=True):
        assert port.get_element_type().to_dtype() == tensor.dtype


def test_bf16_makes_the_golden_frame() -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bf16")
    bundle = Bundle.open()
    with closing(open_session(bundle, "openvino", threads=1, precision="bf16")) as session:
        assert session.backend.precision == session.backend.another().precision == "bf16"
        assert agreement(golden_frame(session, bundle), bundle).psnr_db > 50


def test_the_smallest_numbers_stay_what_they_are() -> None:
    """Treating them as zero, which is quicker on some CPUs, would hold for all of this thread."""
    bundle, smallest = Bundle.open(), np.array([5e-324])
    with closing(open_session(bundle, "openvino", threads=1)) as session:
        golden_frame(session, bundle)
    assert (smallest * 1.0).item() > 0
