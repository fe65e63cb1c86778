"""Animates a clip by a Triton server that serves `sonomime triton`'s model, and writes a video.

    pip install sonomime "tritonclient[grpc]"
    python triton_client.py still.png driving.mp4 -o out.mp4 --url localhost:8001

One sequence is one still and its driving frames. The first request begins it and brings the still;
a last one, without a picture, ends it, so that the server can use its place again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.sinks.open_sink import open_sink
from sonomime.runtime.support.errors import SonomimeError

MODEL = "sonomime"
TYPES = {"uint8": "UINT8", "float64": "FP64"}


def ask(client: Any, number: int, given: dict[str, np.ndarray], **flags: Any) -> dict[str, Any]:
    """One request of sequence `number`, and its answer's outputs by name."""
    inputs = []
    for name, array in given.items():
        array = array[..., None] if array.ndim == 2 else array  # grey pictures have a channel too
        inputs.append(triton.InferInput(name, array.shape, TYPES[array.dtype.name]))
        inputs[-1].set_data_from_numpy(np.ascontiguousarray(array))
    answer = client.infer(MODEL, inputs, sequence_id=number, **flags)
    names = [output.name for output in answer.get_response().outputs]
    return {name: answer.as_numpy(name) for name in names}


def animate(client: Any, still: np.ndarray, frames: Any, **options: Any) -> Iterator[Any]:
    """The answer for each driving frame. `options`: scale, smooth, shading."""
    number = 1 + secrets.randbits(62)  # nobody else's, and not 0
    begun = False
    try:
        for frame in frames:
            given = {"driving": frame.image, "timestamp": np.array([frame.timestamp])}
            flags: dict[str, Any] = {}
            if not begun:
                given["source"] = still
                flags = {"sequence_start": True, "parameters": options or None}
            answer = ask(client, number, given, **flags)
            begun = True
            yield answer
    finally:
        if begun:
            # A server that has failed cannot end it; what it said first is worth more.
            with contextlib.suppress(triton.InferenceServerException):
                ask(client, number, {}, sequence_end=True)


def run(client: Any, still: Path, driving: Path, output: Path, **options: Any) -> str:
    """Write the video; what came of it in words."""
    image = next(iter(open_source(still))).image
    clip = open_source(driving)
    count, doubts = 0, 0
    with ExitStack() as stack:
        sink: Any = None
        for answer in animate(client, image, clip, **options):
            frame = answer["frame"]
            frame = frame[..., 0] if frame.shape[2] == 1 else frame
            if sink is None:
                texts, size = json.loads(answer["texts"][0]), (frame.shape[1], frame.shape[0])
                channels = 1 if frame.ndim == 2 else 3
                sink = stack.enter_context(open_sink(output, size, channels, clip.fps, texts))
            sink.write(frame)
            count, doubts = count + 1, doubts + (answer["state"][0] == b"doubtful")
    return f"{output}: {count} frames, {doubts} doubtful"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("still", type=Path)
    parser.add_argument("driving", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--url", default="localhost:8001", help="the server's address for gRPC")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the motion")
    args = parser.parse_args(arguments)
    try:
        with triton.InferenceServerClient(args.url) as client:
            print(run(client, args.still, args.driving, args.output, scale=args.scale))
    except triton.InferenceServerException as error:
        hint = f"is there a Triton server at {args.url}, and has it loaded {MODEL}?"
        raise SystemExit(f"error: {error.message()}\nhint: {hint}") from None
    except SonomimeError as error:
        raise SystemExit(f"error: {error}\nhint: {error.hint}") from None


if __name__ == "__main__":
    main()
