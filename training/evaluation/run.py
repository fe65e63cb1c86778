"""A run of `sonomime evaluate`: from the folders to the report, for each task."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import torch

from ...runtime.backends import PREFERENCE
from ...runtime.backends.base import default_threads
from ...runtime.media.frames import parse_crop, png_bytes
from ...runtime.session import Session
from ...runtime.support.atomic_files import atomic_write_bytes, atomic_write_text
from ...runtime.support.errors import ConfigError, InputError, output_errors
from ...runtime.support.on_ray import OnRay, check_ray
from ...runtime.support.printable import printable
from ...runtime.support.processes import Processes
from ...runtime.support.progress import progress
from ...runtime.support.spread import Lost
from ...runtime.support.spread import spread as spread_over
from ..data.clip_frames import ClipFrames, load_clip
from ..data.dataset import Clip, ClipList, check_splits, find_clips
from ..data.keypoints import LabelError, count_names, described, slip_hint, slips
from . import strips
from .candidate import Candidate, open_candidate, training_facts
from .detection import mean_places, undetectable
from .judgement import judge
from .loop import Picture, Row, spread
from .measuring import Item, Measured, Measurer, Worker
from .networks.catalogue import Network, open_networks
from .report import json_text, make_record, markdown, summary, title_of
from .tasks import choose_driver, motionless
from .tracking import untrackable
from .transfer import choose_pairs
from .truth import read_clip_field, read_pairs
from .viewer import Features, Viewer

TEST, ALL = "test", "all"
NO_TEST = (
    "the data has no split named test, so all clips are evaluated, possibly including clips that "
    "the model was trained on"
)
LABELLED = {"tracking": untrackable, "detection": undetectable}
"""Tasks that need labels, and why a clip may not do for one."""
LeftOut = list[tuple[str, str]]
"""Clips that cannot be used, with the reason."""


def run(args: Namespace, keep: Callable[[str, strips.Sketch], None] | None = None) -> int:
    """Judge every clip or pair of the folders, write the report, and print its summary.

    Args:
        keep: takes the name and the frames of each.

    Raises:
        InputError: nothing can be judged; a wrong path; truth that does not fit its clips; labels
            that cannot be right; a subject in two splits, unless all are evaluated.
        CheckpointError, BundleError: the candidate cannot be opened.
        OutputError: the report cannot be written.
    """
    predicting, output = args.task == "prediction", args.output
    paired = args.task in ("prediction", "transfer")
    for option in ("max_pairs", "alignment"):
        if not paired and getattr(args, option) is not None:
            fault = f"--{option.replace('_', '-')} is for --task prediction and transfer"
            raise ConfigError(fault, "leave it out, or add the task")
    if args.task in LABELLED and args.network:
        hint = "leave it out, or choose another task"
        raise ConfigError(f"--network judges pictures, and {args.task} makes none", hint)
    if args.ray is not None:
        check_ray(args.ray)  # at once, not when the clips are read
    if args.threads is not None:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    networks = open_networks(args.network)
    args.network = [network.given for network in networks]  # for the report: with the digests
    viewer = Viewer(networks) if networks else None
    cases, left_out, warnings = _find(args)
    _warn(warnings)
    with output_errors(output):  # at once, not after minutes of work
        (output / "strips").mkdir(parents=True, exist_ok=True)
    with open_candidate(args.candidate, threads=args.threads) as candidate:
        if paired:
            _choose_alignment(candidate, args)
        if predicting:
            ends = (clip for pair in cases for clip in (pair.source, pair.driving))
            clips = list({clip.path: clip for clip in ends}.values())
        else:
            cases = _read_clips(candidate, cases, args.task, left_out)
            clips = [case.clip for case in cases]
        if args.task == "transfer":
            cases = _pair(cases, args)
        seen, said = training_facts(candidate, args.data, clips)
        said += _other_names(candidate, clips)
        _warn(said)
        label = f"evaluating {'pairs' if paired else 'clips'}"
        measured = _measured(candidate, networks, _items(cases, args), args)
        found: dict[int, tuple[Row, Picture, Sequence[Features]]] = {}
        for index, each in progress(measured, len(cases), label):
            name = each.row.get("pair") or each.row["clip"]
            if keep is not None:
                keep(name, each.sketch)
            strip, line = strips.pictures(title_of(args.task, name, each.row), each.sketch)
            path = output / "strips" / strips.strip_name(index, name)
            atomic_write_bytes(path, png_bytes(strip))
            found[index] = each.row, line, each.features
        rows, lines, features = zip(*(found[i] for i in range(len(cases))), strict=True)
        if viewer:
            for each in features:
                viewer.add(each)
        facts = {**candidate.facts, **seen}
        size = candidate.own.session.chain.image.size
    atomic_write_bytes(output / "overview.png", png_bytes(strips.overview(lines)))
    distances, doubts = judge(viewer, rows, size, args.seed) if viewer else (None, [])
    _warn(doubts)
    warnings += said + doubts
    settings = _settings(args)
    record = make_record(_command_line(args), facts, settings, rows, left_out, warnings, distances)
    atomic_write_text(output / "table.md", markdown(record))
    atomic_write_text(output / "results.json", json_text(record))
    if args.json:
        print(json_text(record), end="")
    stream = sys.stderr if args.json else sys.stdout
    print(printable(summary(record)), file=stream)
    print(f"\ntables: {output / 'table.md'}\nall numbers: {output / 'results.json'}", file=stream)
    print(f"pictures: {output / 'overview.png'}, {output / 'strips'}/", file=stream)
    return 0


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)


def _find(args: Namespace) -> tuple[list[Any], LeftOut, list[str]]:
    """Clips or pairs of the split, clips without a reader, warnings."""
    crop = parse_crop(args.crop) if args.crop else None
    asked = None if args.split == ALL else args.split
    if args.task == "prediction":
        pairs, warnings, every = [], [], []
        for folder in args.data:
            found = find_clips([folder], crop=crop)
            warnings += found.warnings
            every += _every(found)
            pairs += read_pairs(folder, _every(found), asked)
        if args.split is None:
            args.split = _default_split({pair.split for pair in pairs}, warnings)
            pairs = [pair for pair in pairs if args.split in (ALL, pair.split)]
        if args.split != ALL:
            check_splits(every)
        return spread(pairs, args.max_pairs), [], warnings
    found = find_clips(args.data, split=asked, crop=crop)
    if args.split is None:
        args.split = _default_split({clip.split for clip in _every(found)}, found.warnings)
        if args.split != ALL:
            found = find_clips(args.data, split=args.split, crop=crop)
    for folder in args.data:
        if not any(clip.path.is_relative_to(folder) for clip in _every(found)):
            found.warnings.append(f"{folder} has no clip of the split {args.split!r}")
    left_out = [(clip.name, reason) for clip, reason in found.unsupported]
    return found.clips, left_out, found.warnings


def _default_split(there: Collection[str], warnings: list[str]) -> str:
    if TEST not in there:
        warnings.append(NO_TEST)
    return TEST if TEST in there else ALL


def _every(found: ClipList) -> list[Clip]:
    return found.clips + [clip for clip, _ in found.unsupported]


def _read_clips(
    candidate: Candidate, clips: Sequence[Clip], task: str, left_out: LeftOut
) -> list[ClipFrames]:
    """The clips as the model sees them; those that cannot be used are added to `left_out`.

    Raises:
        InputError: no clip can be used; the labels or the exact field of one are wrong.
    """
    unfit = LABELLED.get(task, motionless)
    hint = "give videos or folders of frames that move"
    if task in LABELLED:
        hint = f"{task} needs a keypoints.csv with labels of frames"
    image = candidate.own.session.chain.image
    loaded: list[ClipFrames] = []
    for clip in progress(clips, label="reading clips"):
        try:
            # Evaluation reads the field at full size, which training does not keep.
            frames = load_clip(replace(clip, displacement=None), image.size, image.channels)
            reason = unfit(frames)
        except LabelError:  # to be fixed: an evaluation of fewer clips would hide it
            raise
        except InputError as error:
            reason = error.message
        if reason is None:
            found = replace(frames.clip, displacement=clip.displacement)  # with the crop
            loaded.append(replace(frames, clip=found))
        else:
            left_out.append((clip.name, reason))
    if not loaded:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out)
        raise InputError(f"no clip can be evaluated ({reasons})", hint)
    for each in loaded if task == "reconstruction" else ():
        if each.clip.displacement is not None:  # now, not after minutes of work
            read_clip_field(each.clip.displacement, each)
    return loaded


def _other_names(candidate: Candidate, clips: Sequence[Clip]) -> list[str]:
    """A warning about labels whose names seem to be ones that the model learned, misspelt. Points
    are followed by their places, so the figures hold."""
    control = candidate.own.session.chain.control
    known = getattr(control, "landmarks", ()) or [
        point.name for point in getattr(control, "supervised", ())
    ]
    counts = count_names(clip.keypoints for clip in clips)
    if not known or not (found := slips(counts, known)):
        return []
    names = f"the data labels {described(counts)}, the model knows {described(known)}"
    return [f"{names}; {slip_hint(found)}"]


def _choose_alignment(candidate: Candidate, args: Namespace) -> None:
    session = candidate.own.session
    usual = "given" if args.task == "prediction" else "auto"
    if args.alignment is None:
        can = session.can_align if usual == "given" else _aligns_itself(session)
        args.alignment = usual if can else "none"
    if args.task == "transfer" and args.alignment not in ("auto", "none"):
        fault = f"--alignment {args.alignment} is for --task prediction"
        raise ConfigError(fault, "give auto or none: transfers have no landmarks")
    if args.alignment != "none" and not session.can_align:
        raise ConfigError("this model cannot align two subjects", "leave --alignment out")
    if args.alignment == "auto" and not _aligns_itself(session):
        hint = "--alignment given, landmarks or none"
        raise ConfigError("this model cannot align by itself", hint)


def _aligns_itself(session: Session) -> bool:
    return bool(session.can_register or session.landmarks)


def _pair(clips: Sequence[ClipFrames], args: Namespace) -> list[tuple[ClipFrames, ClipFrames]]:
    """Sources with their drivers.

    Raises:
        InputError: all clips are of one subject.
    """
    chosen = choose_pairs([each.clip for each in clips], args.seed, args.max_pairs)
    if not chosen:
        hint = "give clips of two subjects or more; clips.csv says whose they are"
        raise InputError("all clips are of one subject, so no other can drive", hint)
    return [(clips[source], clips[driver]) for source, driver in chosen]


def _items(cases: Sequence[Any], args: Namespace) -> list[Item]:
    if args.task == "transfer":
        return [Item(own, other) for own, other in cases]
    if args.task == "detection":
        places = mean_places(cases)
        return [Item(clip, places=places) for clip in cases]
    if args.task != "reconstruction":
        return [Item(case) for case in cases]
    clips = [each.clip for each in cases]
    drivers = [choose_driver(clips, index, args.seed) for index in range(len(clips))]
    return [
        Item(case, None if driver is None else cases[driver])
        for case, driver in zip(cases, drivers, strict=True)
    ]


def _measured(
    candidate: Candidate, networks: Sequence[Network], items: Sequence[Item], args: Namespace
) -> Iterator[tuple[int, Measured]]:
    """The indices of all items with what was measured, as they come.

    Raises:
        SonomimeError: what a worker raises; workers were lost; what `OnRay` raises.
    """
    how = {"task": args.task, "alignment": args.alignment, "max_frames": args.max_frames}
    if args.ray is None and args.jobs is None:
        yield from enumerate(map(Measurer(candidate, networks, **how), items))
        return
    backend, threads = candidate.own.session.backend.name, args.threads
    if threads is None:  # on a cluster as many as here: the last bit may depend on it
        here = torch.get_num_threads() if backend == "torch" else default_threads()
        threads = here if args.ray else max(here // args.jobs, 1)
    make = partial(
        Worker, os.getcwd(), args.candidate, candidate.facts, backend, threads,
        cv2.getNumThreads(), [network.given for network in networks], how,
    )  # fmt: skip
    gpus = int(backend in PREFERENCE or (bool(networks) and torch.cuda.is_available()))
    crew = Processes(make) if args.ray is None else OnRay(make, args.ray, threads, gpus)
    with crew:
        for index, said in spread_over(crew, args.jobs or max(crew.room, 1), items):
            if isinstance(said, Lost):
                raise said.error(items[index].name)
            yield index, said


def _settings(args: Namespace) -> dict[str, Any]:
    """What was asked for, for the report."""
    settings = {
        "task": args.task,
        "data": " ".join(str(folder) for folder in args.data),
        "split": args.split,
        "crop": args.crop or "as the data says",
        "max_frames": args.max_frames or "all",
    }
    if args.task in ("prediction", "transfer"):
        settings |= {"max_pairs": args.max_pairs or "all", "alignment": args.alignment}
    if args.network:
        settings |= {"networks": " ".join(args.network)}
    return {**settings, "seed": args.seed}


def _command_line(args: Namespace) -> str:
    """The command that asks for this evaluation again."""
    words = ["sonomime", "evaluate", str(args.candidate), "--data", *map(str, args.data)]
    words += ["--task", args.task, "-o", str(args.output), "--seed", str(args.seed)]
    for option in ("split", "crop", "max_frames", "max_pairs", "alignment", "threads"):
        if (value := getattr(args, option)) is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    for network in args.network:
        words += ["--network", network]
    return shlex.join(words)
