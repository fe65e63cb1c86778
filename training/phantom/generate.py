"""A phantom folder: clips, keypoints, displacement and true predictions, each file whole or absent.

Every file follows from (anatomy, seed, number) alone, so an interrupted run that is started again
makes the same pixels, with any number of workers, on one machine or several.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.sinks.open_sink import open_sink
from ...runtime.support.atomic_files import atomic_path, atomic_write_text, locked
from ...runtime.support.dataclass_parser import plain
from ...runtime.support.errors import ConfigError, OutputError
from ...runtime.support.on_ray import OnRay, check_ray
from ...runtime.support.processes import Processes
from ...runtime.support.progress import progress
from ...runtime.support.spread import Lost, spread
from .body import Body
from .probe import SIZE
from .render import Shot, film
from .subject import CHECKED_STATES, Subject, draw_subject, subject_text

_SCATTERERS, _NOISE, _PAIRS, _OTHER = 1, 2, 3, 4  # random streams of a subject or a seed
_ELSEWHERE = "choose another name with -o"
METADATA = {"title": "sonomime phantom", "comment": "synthetic ultrasound, simulated by sonomime"}
VERSION = 1
"""Of the pixels: raised by a change that gives others, so that no folder mixes them."""


@dataclass(frozen=True)
class Settings:
    """What a folder is made from; it is only continued with the same settings."""

    anatomy: str
    seed: int
    subjects: int
    frames: int
    pairs: int
    version: int = VERSION


class Pair(NamedTuple):
    """A true prediction to make: ``source`` moves as ``driving`` does."""

    source: Subject
    driving: Subject

    @property
    def name(self) -> str:
        return f"{self.source.name}__{self.driving.name}"


class Made(NamedTuple):
    """What is in the folder now, and was there already; frames rendered, those of the true
    predictions included; how many seconds it took."""

    clips: int
    pairs: int
    clips_before: int
    pairs_before: int
    rendered: int
    seconds: float


def generate(
    folder: Path, settings: Settings, jobs: int | None = None, ray: str | None = None
) -> Made:
    """Make a phantom folder, or what is missing of it.

    It starts processes: a script that calls it needs ``if __name__ == "__main__":``.

    Args:
        jobs: clips that are rendered at once; None: one for each processor.
        ray: the address of a Ray cluster, as for `OnRay`; None: this machine renders.

    Raises:
        ConfigError: the folder holds another phantom; more pairs than there can be; what `OnRay`
            raises.
        OutputError: it cannot be written, e.g. because the disk is full; something else is there.
        BackendError: no worker can start; what `OnRay` raises.
        SonomimeError: the workers of a clip were killed, several times.
    """
    refuse_other(folder, asdict(settings))
    if ray is not None:
        check_ray(ray)  # at once, not when the subjects are drawn
    numbers = progress(range(settings.subjects), label="drawing subjects")
    subjects = [draw_subject(settings.anatomy, settings.seed, number) for number in numbers]
    pairs = choose_pairs(settings, subjects) if settings.pairs else []
    return _make(folder, asdict(settings), subjects, pairs, jobs, ray)


def render_subject(folder: Path, subject: Subject, frames: int) -> Made:
    """Make a phantom folder of one clip, of a subject read from a file. Raises as `generate`."""
    settings = {
        "anatomy": subject.anatomy,
        "subject": subject.name,
        "speckle": [subject.seed, subject.number],
        "frames": frames,
        "version": VERSION,
        "parameters": plain(subject.parameters),
    }
    refuse_other(folder, settings)
    return _make(folder, settings, [subject], [])


def choose_pairs(settings: Settings, subjects: Sequence[Subject]) -> list[Pair]:
    """Pairs of test subjects, drawn from the seed, whose landmarks stay in the sector; ConfigError
    if there are fewer than asked for."""
    test = [subject for subject in subjects if subject.split == "test"]
    bodies = [subject.body for subject in test]
    manoeuvres = [body.states(CHECKED_STATES) for body in bodies]
    others = len(test) - 1

    def possible() -> Iterator[Pair]:
        rng = np.random.default_rng([settings.seed, _PAIRS])
        for i in rng.permutation(len(test) * others):
            a, b = divmod(int(i), others)
            b += b >= a  # a subject does not drive itself
            if bodies[a].why_impossible(manoeuvres[b] - manoeuvres[b][0]) is None:
                yield Pair(test[a], test[b])

    chosen = list(progress(islice(possible(), settings.pairs), settings.pairs, "choosing pairs"))
    if len(chosen) < settings.pairs:
        raise ConfigError(
            f"--pairs {settings.pairs}: only {len(chosen)} pairs are possible. Every fifth of the "
            f"{settings.subjects} subjects is for testing, and the landmarks of a pair must stay "
            "in the sector",
            f"ask for at most {len(chosen)} pairs, or for more subjects"
            if chosen
            else "leave --pairs out, or ask for more subjects",
        )
    return chosen


def refuse_other(folder: Path, settings: Mapping[str, Any]) -> None:
    """ConfigError if a folder holds another phantom than of these settings, or a damaged
    ``phantom.json``; OutputError if it is a file, or a folder of something else."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write the folder {folder}: it is a file", _ELSEWHERE)
    path = folder / "phantom.json"
    if not path.exists():
        if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise OutputError(f"the folder {folder} holds something else", _ELSEWHERE)
        return
    try:
        texts = path.read_text(encoding="utf-8"), json.dumps(settings)
        there, asked = (dict(_flat(json.loads(text))) for text in texts)
        found = {key: (there.get(key, "(none)"), asked.get(key, "(none)")) for key in there | asked}
        other = [f"{key} {a}, not {b}"[:200] for key, (a, b) in found.items() if a != b]
    except AttributeError:
        raise ConfigError(f"{path} is damaged (it holds no settings)", _ELSEWHERE) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error})", _ELSEWHERE) from error
    if other:
        hint = f"give the same options to continue it, or {_ELSEWHERE}"
        raise ConfigError(f"{folder} holds another phantom: {'; '.join(other)}", hint)


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


@contextmanager
def claimed(folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Lock the folder, which is made if need be, and write into its ``phantom.json`` what it is
    for. Files that a killed run left half-written are removed, before and after. OutputError if
    another process writes there, or it cannot be made; and what :func:`refuse_other` raises."""
    with locked(folder):
        refuse_other(folder, settings)
        _remove_half_written(folder)
        if not (path := folder / "phantom.json").exists():
            atomic_write_text(path, json.dumps(settings, indent=2) + "\n")
        try:
            yield
        finally:
            _remove_half_written(folder)


def _remove_half_written(folder: Path) -> None:
    for part in ("", "clips", "displacement", "subjects", "truth"):
        for path in (folder / part).glob(".*.part*"):
            with suppress(OSError):
                path.unlink()


def _make(
    folder: Path, settings: dict[str, Any], subjects: list[Subject], pairs: list[Pair],
    jobs: int | None = None, ray: str | None = None,
) -> Made:  # fmt: skip
    start, frames = time.monotonic(), settings["frames"]
    with claimed(folder, settings):
        clips = [s for s in subjects if not all(map(Path.is_file, clip_files(folder, s.name)))]
        truths = [p for p in pairs if not all(map(Path.is_file, _truth_files(folder, p.name)))]
        to_render = frames * (len(clips) + 2 * len(truths))
        todo: list[Subject | Pair] = [*clips, *truths]
        if todo:
            make = partial(_open_renderer, folder.absolute(), frames)
            with Processes(make) if ray is None else OnRay(make, ray, 1, 0) as crew:
                made = spread(crew, jobs or max(crew.room, 1), todo)
                for index, said in progress(made, len(todo), "rendering clips"):
                    if isinstance(said, Lost):
                        raise said.error(todo[index].name)
        _write_tables(folder, subjects, pairs, frames)
    before = len(subjects) - len(clips), len(pairs) - len(truths)
    return Made(len(subjects), len(pairs), *before, to_render, time.monotonic() - start)


def _open_renderer(folder: Path, frames: int) -> Callable[[Subject | Pair], None]:
    """What a worker makes, of one thread: see `Process`."""
    cv2.setNumThreads(1)
    return partial(_render, folder, frames)


def _render(folder: Path, frames: int, wanted: Subject | Pair) -> None:
    if isinstance(wanted, Pair):
        _make_truth(folder, wanted, frames)
    else:
        _make_clip(folder, wanted, frames)


def clip_files(folder: Path, name: str) -> tuple[Path, ...]:
    """The clip, displacement and parameters of a subject."""
    files = f"clips/{name}.mkv", f"displacement/{name}.npz", f"subjects/{name}.json"
    return tuple(folder / file for file in files)


def _truth_files(folder: Path, name: str) -> tuple[Path, ...]:
    """The true prediction of a pair, its other rendering and its truth."""
    return tuple(folder / "truth" / f"{name}{end}" for end in (".mkv", ".other.mkv", ".npz"))


def _make_clip(folder: Path, subject: Subject, frames: int) -> None:
    clip, displacement, parameters = clip_files(folder, subject.name)
    body, noise = subject.body, [subject.seed, subject.number, _NOISE]
    shots = film(body, body.states(frames), _seed(subject, _SCATTERERS), noise)
    _save(displacement, displacement=_write_clip(clip, shots, body), sector=body.probe.sector())
    atomic_write_text(parameters, subject_text(subject))


def _make_truth(folder: Path, pair: Pair, frames: int) -> None:
    video, other, arrays = _truth_files(folder, pair.name)
    body, states = pair.source.body, pair.driving.body.states(frames)
    states = states - states[0]
    displacement = _write_clip(video, film(body, states, _seed(pair.source, _SCATTERERS)), body)
    _write_clip(other, film(body, states, _seed(pair.source, _OTHER)), body)
    keypoints, names = body.landmark_pixels(states), np.array(body.keypoint_names)
    truth = {"displacement": displacement, "sector": body.probe.sector()}
    _save(arrays, **truth, keypoints=keypoints, keypoint_names=names)


def _seed(subject: Subject, use: int) -> int:
    return int(np.random.SeedSequence([subject.seed, subject.number, use]).generate_state(1)[0])


def _write_clip(path: Path, shots: Iterable[Shot], body: Body) -> NDArray[np.float32]:
    """Write a clip; returns its displacement, float32 (T, SIZE, SIZE, 2)."""
    fields = []
    with open_sink(path, (SIZE, SIZE), 1, body.display.frame_rate, METADATA) as sink:
        for shot in shots:
            sink.write(shot.image)
            fields.append(shot.displacement)
    return np.stack(fields)


def _save(path: Path, **arrays: Any) -> None:
    """Write a .npz file with light compression: numpy's own level takes eight times as long, a
    third of a clip's whole time, and saves 6 % of the size."""
    with atomic_path(path) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED, True, 1) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array))


def _write_tables(
    folder: Path, subjects: Sequence[Subject], pairs: Sequence[Pair], frames: int
) -> None:
    """keypoints.csv, truth/pairs.csv, and clips.csv last: with it the folder is a dataset."""
    clips = [["clip", "subject", "group", "split", "crop"]]
    labels = [["video", "frame", "keypoint", "x", "y", "visible"]]
    for subject in subjects:
        clip, body = f"clips/{subject.name}.mkv", subject.body
        whole = f"0,0,{SIZE},{SIZE}"  # black borders are no reason to crop
        clips.append([clip, subject.name, subject.anatomy, subject.split, whole])
        for frame, points in enumerate(body.landmark_pixels(body.states(frames))):
            for keypoint, (x, y) in zip(body.keypoint_names, points, strict=True):
                labels.append([clip, str(frame), keypoint, f"{x:.3f}", f"{y:.3f}", "1"])
    _write_csv(folder / "keypoints.csv", labels)
    if pairs:
        rows = [["pair", "source", "driving", "split"]]
        for pair in pairs:
            ends = [f"clips/{subject.name}.mkv" for subject in pair]
            rows.append([pair.name, *ends, pair.source.split])
        _write_csv(folder / "truth" / "pairs.csv", rows)
    _write_csv(folder / "clips.csv", clips)


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    csv.writer(text := io.StringIO(), lineterminator="\n").writerows(rows)
    atomic_write_text(path, text.getvalue())
