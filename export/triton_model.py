"""The model that NVIDIA's Triton Inference Server runs: one Animator for each sequence.

`sonomime triton` copies this file to model_repository/sonomime/1/model.py. There it is no part of
the package, so its imports are absolute, and `triton_python_backend_utils` comes from the server.
The bundle lies beside it; options are the parameters of config.pbtxt.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import triton_python_backend_utils as pb_utils

from sonomime.runtime import Animator
from sonomime.runtime.compose import Size
from sonomime.runtime.media.frames import Image, Letterbox, check_image, resize
from sonomime.runtime.media.mark import draw_mark, metadata
from sonomime.runtime.still import made_size
from sonomime.runtime.support.errors import ConfigError, InputError, SonomimeError

log = logging.getLogger("sonomime")

NEUTRAL: dict[str, Any] = {"scale": 1.0, "smooth": False, "shading": "full"}
"""Parameters of a request, which hold from that frame on, and what they are at first."""
SYNTHETIC = json.dumps(metadata())


class Made(NamedTuple):
    """The outputs of one request: uint8 (H, W, 1 or 3), empty if there was no driving frame."""

    frame: Image
    state: str = "no frame"
    why: str = ""
    confidence: float = float("nan")


class Sequence:
    """A source, its reference and driving frames, and an Animator for them alone."""

    def __init__(self, animator: Animator, size: Size, mark: bool) -> None:
        self.animator, self._size, self._mark = animator, size, mark
        self._box: Letterbox | None = None  # the source's; None: there is no source yet
        # The Animator may have served another sequence, whose source must never be seen in this.
        animator.reset()
        animator.adjust(**NEUTRAL)

    def serve(self, given: dict[str, Any], options: dict[str, Any]) -> Made:
        """Take what a request brings, in this order: options, source, reference, driving frame."""
        # All of it is looked at first, so that a bad picture leaves the sequence as it was.
        pictures = {name: picture(name, given[name]) for name in PICTURES if name in given}
        if "timestamp" in given and not np.isfinite(given["timestamp"]).all():
            raise InputError("the timestamp is not a number", "send seconds, or none")
        if "driving" in pictures and self._box is None and "source" not in pictures:
            raise InputError("this sequence has no source yet", "send `source` with this request")
        if options:
            self.animator.adjust(**options)
        if "source" in pictures:
            self._take_source(pictures["source"])
        if "reference" in pictures:
            self.animator.set_reference(pictures["reference"])
        changed = "source" in pictures or "reference" in pictures
        if changed and self._box is not None and self.animator.session.can_register:
            self.animator.align()  # with no reference yet, this waits for the first driving frame
        if "driving" not in pictures:
            return Made(np.empty((0, 0, 1), np.uint8))
        return self._frame(pictures["driving"], given.get("timestamp"))

    def _take_source(self, image: Image) -> None:
        chain = self.animator.session.chain
        box = Letterbox.fit(image.shape[1], image.shape[0], chain.image.size)
        size = made_size(box, self._size, chain)  # may refuse: before the old source is lost
        self._box = None
        self.animator.set_source(image)
        self._box, self._made = box, size

    def _frame(self, image: Image, timestamp: Any) -> Made:
        composes = self.animator.session.chain.layers is not None
        time = None if timestamp is None else float(timestamp.reshape(-1)[0])
        try:
            frame = self.animator.animate(image, time, size=self._made if composes else None)
        except InputError as error:  # whose hint is for those who hold the Animator
            hint = error.hint.replace("call reset() before", "begin another sequence for")
            raise InputError(error.message, hint) from None
        if not composes:
            frame = resize(self.animator.letterbox.inside(frame), *self._made)
        if self._mark:
            frame = draw_mark(frame)
        frame = frame if frame.ndim == 3 else frame[..., None]
        quality = self.animator.quality
        if quality is None:  # a model that does not judge its own frames
            return Made(frame, "live")
        state = "doubtful" if quality.why else "live"
        return Made(frame, state, quality.why, quality.confidence)


class Sequences:
    """The sequences by their number, at most `most` at a time; Animators are used again.

    All Animators share the weights of the first on a CPU, where `Animator.another` does that. None
    is opened before it is needed, and none is closed before the end.
    """

    def __init__(self, first: Animator, most: int) -> None:
        self._most = most
        self._all, self._spare = [first], [first]
        self._running: dict[int, Sequence] = {}  # the longest unused is first

    def begin(self, number: int, size: Size, mark: bool) -> None:
        """Begin a sequence, again if it is there."""
        self.end(number)
        if len(self._running) >= self._most:
            # The server runs no more than that, so it has given one up that was idle for too long.
            # Nobody says which.
            self.end(next(iter(self._running)))
        if not self._spare:
            self._all.append(self._all[0].another())
            self._spare.append(self._all[-1])
        self._running[number] = Sequence(self._spare[-1], size, mark)
        self._spare.pop()

    def use(self, number: int) -> Sequence:
        """A running sequence, which is now the last used."""
        if number not in self._running:
            what = f"sequence {number} is not running: it has ended, or was idle for too long"
            raise InputError(what, "begin it again: sequence_start, with its source")
        self._running[number] = sequence = self._running.pop(number)
        return sequence

    def end(self, number: int) -> None:
        """End a sequence; nothing happens if there is none."""
        if (sequence := self._running.pop(number, None)) is not None:
            self._spare.append(sequence.animator)

    def close(self) -> None:
        """Close all Animators."""
        for animator in reversed(self._all):  # the first last: others may share its weights
            animator.close()


class TritonPythonModel:
    """What the server calls. One request's error is that request's answer; its sequence goes on."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle beside this file, with the parameters of config.pbtxt."""
        config = json.loads(args["model_config"])
        options = {name: each["string_value"] for name, each in config["parameters"].items()}
        most = int(config["sequence_batching"]["oldest"]["max_candidate_sequences"])
        on_gpu = args["model_instance_kind"] == "GPU"
        self._mark, self._size = options["mark"] != "no", options["size"]
        # Opened now, so that a server that is ready can serve.
        first = Animator.open(
            Path(__file__).resolve().parents[1] / "bundle",
            backend=options["backend"],
            threads=int(options["threads"]) or None,
            device=int(args["model_instance_device_id"]) if on_gpu else None,
        )
        self._sequences = Sequences(first, most)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests, each by itself."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Close what is open; the server is leaving."""
        self._sequences.close()

    def _answer(self, request: Any) -> Any:
        number, code = int(value(request, "CORRID", 0)), pb_utils.TritonError.INTERNAL
        try:
            if value(request, "START", 0):
                self._sequences.begin(number, self._size, self._mark)
            sequence = self._sequences.use(number)
            names = (*PICTURES, "timestamp")
            found = {name: pb_utils.get_input_tensor_by_name(request, name) for name in names}
            given = {name: each.as_numpy() for name, each in found.items() if each is not None}
            return response(sequence.serve(given, asked(request.parameters())))
        except SonomimeError as error:
            if isinstance(error, ConfigError | InputError):
                code = pb_utils.TritonError.INVALID_ARG  # the client's fault
            said = f"{error.message}; {error.hint}" if error.hint else error.message
        except Exception as error:  # a defect: the other sequences shall not suffer from it
            log.exception("a request failed")
            said = f"a defect of sonomime, see the server's log: {error!r}"
        finally:
            if value(request, "END", 0):
                self._sequences.end(number)
        return pb_utils.InferenceResponse([], pb_utils.TritonError(said, code))


PICTURES = "source", "reference", "driving"


def value(request: Any, name: str, default: int) -> Any:
    """A control input's only value."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else tensor.as_numpy().reshape(-1)[0]


def picture(name: str, array: Any) -> Image:
    """(H, W, 1 or 3) -> an image of this package; InputError, naming the input."""
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        what = f"`{name}` has the shape {list(array.shape)}"
        raise InputError(what, "a picture is uint8 [height, width, 1 (grey) or 3 (RGB)]")
    # A copy in any case: the server's memory is only lent for this request.
    return check_image(np.array(array[..., 0] if array.shape[2] == 1 else array, order="C"))


def asked(text: str) -> dict[str, Any]:
    """The options of a request's parameters, which come as JSON; ConfigError if one is wrong."""
    found = json.loads(text or "{}")
    if unknown := [name for name in found if name not in NEUTRAL and not name.startswith("triton")]:
        what = f"unknown parameter {', '.join(sorted(unknown))} of the request"
        raise ConfigError(what, f"known are {', '.join(NEUTRAL)}")
    options = {name: found[name] for name in NEUTRAL if name in found}
    if isinstance(options.get("scale"), str) and options["scale"] != "hull":
        try:  # some clients send numbers as texts
            options["scale"] = float(options["scale"])
        except ValueError:
            raise ConfigError(f"scale is {options['scale']!r}", "a number, or hull") from None
    return options


def response(made: Made) -> Any:
    """The server's form of what was made."""
    texts = {"state": made.state, "why": made.why, "texts": SYNTHETIC}
    return pb_utils.InferenceResponse([
        pb_utils.Tensor("frame", np.ascontiguousarray(made.frame)),
        pb_utils.Tensor("confidence", np.array([made.confidence], np.float32)),
        *(pb_utils.Tensor(k, np.array([v.encode()], np.object_)) for k, v in texts.items()),
    ])  # fmt: skip
