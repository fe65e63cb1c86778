"""A motion template: the motion of a driving clip in a small file, without its pictures.

It holds what passes from the clip's frames on to the picture: for a model that moves by
displacements, the grids of displacement, confidence and shading, as they are before alignment and
scale; for a model with keypoints, these. So any bundle of the same control can be driven by it.

The file is a NumPy archive (.npz): `header`, JSON as UTF-8 bytes; `times`, float64 (T,), seconds
from 0; `frames/NAME`, (T, ...), and `reference/NAME`, tensors by their names, float32, or float16
where they are grids.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle.manifest import Chain, DisplacementControl, Manifest
from .support.atomic_files import atomic_write_bytes
from .support.errors import InputError

KIND, FORMAT = "sonomime motion template", 1
SUFFIX = ".npz"
SHIPPED = Path(__file__).parent / "templates"
MOST_BYTES, MOST_HEADER = 1 << 28, 1 << 20  # of all arrays of a file, of its header
FARTHEST = 4.0  # points: twice the square's side
MOST_FRAMES = 100_000
BLEND = 0.3  # seconds: at most so long, a loop's end becomes its beginning
SPEED = 0.05  # seconds: so far apart are places that weigh as much as a speed
MOST_GAP = 0.75  # of the motion's size: where a loop's ends differ by more, it runs there and back
MOST_COMPARED = 600  # frames that are compared with each other, evenly spread
PLACES = "displacement", "driving_kp_value"
"""The tensors that say where things are, in points."""
_MAKE_AGAIN = "make the template again with `sonomime template`"

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Loop:
    """The part of a template that is repeated: from `begin` to `end`, in seconds. In the last
    `blend` seconds it becomes what comes before `begin`. `back`: there is no such part, so the
    whole runs there and back. `gap`: how different the ends are, as a share of the motion's size.
    """

    begin: float
    end: float
    blend: float
    gap: float
    back: bool = False


@dataclass(frozen=True, eq=False)
class Template:
    """Attributes:
    times: (T,) seconds, from 0.
    frames: by name, (T, ...): tensors of each frame.
    reference: by name: what was seen of the reference frame; empty for displacements.
    control: what it moves, see `control_of`.
    landmarks: by name, (x, y) points of the reference frame.
    about: texts: title, licence.
    """

    times: NDArray[np.float64]
    frames: Tensors
    reference: Tensors
    control: Mapping[str, Any]
    loop: Loop
    landmarks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long it lasts, to its last frame."""
        return float(self.times[-1])

    def at(self, seconds: float) -> Tensors:
        """The tensors at a time, between frames linear; before the first and after the last as
        there."""
        after = int(np.clip(np.searchsorted(self.times, seconds), 1, len(self.times) - 1))
        begin, end = self.times[after - 1 : after + 1]
        share = np.float32(np.clip((seconds - begin) / (end - begin), 0, 1))
        return {
            name: mixed(values[after - 1], values[after], share)
            for name, values in self.frames.items()
        }

    def looped(self, seconds: float) -> Tensors:
        """The tensors at a time of endless repetition of `loop`, whose begin is time 0."""
        loop, length = self.loop, self.loop.end - self.loop.begin
        if loop.back:
            return self.at(loop.begin + length - abs(seconds % (2 * length) - length))
        here = seconds % length
        left = length - here
        now = self.at(loop.begin + here)
        if left >= loop.blend:
            return now
        before = self.at(loop.begin - left)
        share = np.float32(left / loop.blend)
        return {name: mixed(before[name], now[name], share) for name in now}

    def facts(self) -> dict[str, Any]:
        """What people and programs may want to know of it."""
        how = f"from {self.loop.begin:.2f} to {self.loop.end:.2f} s"
        how = "there and back" if self.loop.back else how
        words = [f"repeats {how}", f"landmarks: {', '.join(self.landmarks) or 'none'}"]
        return {
            "title": self.about.get("title", ""), "licence": self.about.get("licence", ""),
            "frames": len(self.times), "seconds": self.seconds, "control": dict(self.control),
            "landmarks": sorted(self.landmarks), "loop": asdict(self.loop),
            "said": "; ".join(words),
        }  # fmt: skip

    def data(self) -> bytes:
        """The file's bytes."""
        header = {
            "format": FORMAT, "kind": KIND, "control": dict(self.control),
            "landmarks": {name: list(place) for name, place in self.landmarks.items()},
            "loop": asdict(self.loop), "about": dict(self.about),
        }  # fmt: skip
        arrays: dict[str, Any] = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
        arrays["times"] = self.times
        kind = np.float16 if "grid" in self.control else np.float32
        arrays |= {f"frames/{name}": values.astype(kind) for name, values in self.frames.items()}
        arrays |= {f"reference/{name}": v for name, v in self.reference.items()}
        data = io.BytesIO()
        np.savez_compressed(data, **arrays)  # plain numbers, so nothing is pickled
        return data.getvalue()

    def save(self, path: Path) -> None:
        """Write the file, completely or not at all; OutputError if that fails."""
        atomic_write_bytes(path, self.data())

    @classmethod
    def load(cls, path: Path) -> Template:
        """Read a file; InputError, which names it, if it is no template or is damaged."""
        try:
            arrays = _arrays(path)
            header = json.loads(arrays.pop("header").tobytes())
            if (header["kind"], header["format"]) != (KIND, FORMAT):
                raise ValueError(f"its format is {header['format']!r}, this reads {FORMAT}")
            times = np.asarray(arrays.pop("times"), np.float64)
            parts: dict[str, Tensors] = {"frames": {}, "reference": {}}
            for name, values in arrays.items():
                part, _, tensor = name.partition("/")
                parts[part][tensor] = np.asarray(values, np.float32)
            places = header["landmarks"]
            template = cls(
                times, **parts, control=header["control"],
                landmarks={str(k): (float(x), float(y)) for k, (x, y) in places.items()},
                loop=Loop(**header["loop"]),
                about={str(k): str(v) for k, v in header["about"].items()},
            )  # fmt: skip
            template._check()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        except Exception as error:  # zipfile, zlib, json and numpy raise a dozen kinds for damage
            raise InputError(f"{path}: is no motion template ({error})", _MAKE_AGAIN) from error
        return template

    def _check(self) -> None:
        """ValueError for what cannot be."""
        times, count = self.times, len(self.times)
        if times.ndim != 1 or not 2 <= count <= MOST_FRAMES or times[0] != 0:
            raise ValueError("its times are malformed")
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise ValueError("its times do not increase")
        for name, values in {**self.frames, **self.reference}.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name} has values that are not finite")
            if name in PLACES and np.abs(values).max(initial=0) > FARTHEST:
                raise ValueError(f"{name} leads too far away")
        if not isinstance(self.control, dict):
            raise ValueError("its control is malformed")
        if not all(abs(x) <= FARTHEST for place in self.landmarks.values() for x in place):
            raise ValueError("a landmark is too far away")
        if not self.frames or any(len(values) != count for values in self.frames.values()):
            raise ValueError(f"not every tensor has {count} frames")
        loop = self.loop
        edges = loop.blend >= 0 and 0 <= loop.begin < loop.end - loop.blend
        edges &= isinstance(loop.back, bool) and math.isfinite(loop.gap)
        if not (edges and loop.end <= times[-1] and (loop.back or loop.blend > 0)):
            raise ValueError("its loop is malformed")


def find_loop(times: NDArray[np.float64], frames: Mapping[str, NDArray[np.float32]]) -> Loop:
    """The best part to repeat, at least half as long as the whole: where its end is most like its
    beginning, in place and speed. If they differ by more than MOST_GAP, there and back.

    Only the tensors that say where things are count: displacements, or keypoints.
    """
    seconds = float(times[-1])
    few = slice(None, None, 1 + len(times) // MOST_COMPARED)
    times, frames = times[few], {name: values[few] for name, values in frames.items()}
    count = len(times)
    blend = min(BLEND, seconds / 8)
    rows = np.concatenate(
        [values.reshape(count, -1) for name, values in frames.items() if name in PLACES], axis=1
    ).astype(np.float64)  # fmt: skip
    speeds = np.gradient(rows, times, axis=0) * SPEED
    states = np.concatenate([rows, speeds], axis=1)
    size = np.sqrt(np.square(rows - rows.mean(axis=0)).sum(axis=1).mean()) + 1e-9
    squares = np.square(states).sum(axis=1)
    gaps = np.sqrt(np.maximum(squares[:, None] + squares - 2 * states @ states.T, 0)) / size
    fits = times - times[:, None] >= seconds / 2
    i, j = np.unravel_index(np.argmin(np.where(fits, gaps, np.inf)), gaps.shape)
    gap = float(gaps[i, j])
    if gap > MOST_GAP:
        return Loop(0.0, seconds, 0.0, gap, back=True)
    return Loop(float(times[i]), float(times[j]), blend, gap)


def shipped() -> dict[str, Path]:
    """The templates that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob(f"*{SUFFIX}"))}


def template_file(path: Path) -> Path | None:
    """The file, if the path is one of a template, or names one that comes with the package."""
    if not path.exists() and str(path) in (known := shipped()):
        return known[str(path)]
    return path if path.suffix.lower() == SUFFIX else None


def control_of(chain: Chain) -> dict[str, Any]:
    """What a chain moves. A template fits every model with the same: a grid of displacements, and
    one of shading; or so many keypoints of this very training, since others mean other places."""
    control = chain.control
    if isinstance(control, DisplacementControl):
        return {
            "grid": [control.grid_height, control.grid_width],
            "shading": [control.shading_height, control.shading_width],
        }
    (observe,) = chain.of_role("observe")
    made = chain.provenance.checkpoint_sha256 if isinstance(chain, Manifest) else ""
    return {"keypoints": control.count, "training": made or getattr(observe, "sha256", "")}


def said(control: Mapping[str, Any]) -> str:
    """A control in words."""
    return ", ".join(f"{name} {value}" for name, value in control.items())


def mixed(
    first: NDArray[np.float32], second: NDArray[np.float32], share: np.float32
) -> NDArray[np.float32]:
    """From the first (share 0) to the second (1)."""
    return first + share * (second - first)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an archive; ValueError if they are too large, or no plain numbers."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no plain file")
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        if sum(sizes.values()) > MOST_BYTES or sizes.get("header.npy", 0) > MOST_HEADER:
            raise ValueError(f"it is too large: {sum(sizes.values())} bytes")
    with np.load(path, allow_pickle=False) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    kinds = {"header": {"uint8"}, "times": {"float64"}}
    for name, values in arrays.items():
        if values.dtype.name not in kinds.get(name, {"float16", "float32"}):
            raise ValueError(f"{name} is {values.dtype}")
    return arrays
