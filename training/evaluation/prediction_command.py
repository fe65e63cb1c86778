"""`sonomime evaluate --task prediction`: from the folders to the report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ...runtime.media.frames import parse_crop
from ...runtime.support.progress import progress
from ..data.dataset import find_clips
from .candidate import Candidate, open_candidate
from .ground_truth.readers import Pair, read_pair, read_pairs
from .held_out import ALL, NO_TEST, split_to_read, training_facts
from .prediction import PairResult, predict
from .prediction_strips import pair_row, pair_strip
from .prediction_table import PredictionReport, summary_line, to_json, to_markdown
from .reconstruction import spread
from .request import command_line, make_output, settings_of
from .strips import overview, strip_name, write_strip
from .table import write_texts


def run_prediction(args: argparse.Namespace) -> int:
    """Judge every pair of the folders and write the report.

    Raises:
        InputError: no truth/pairs.csv, no pair of the split, truth that does not fit its clips.
        CheckpointError, BundleError: the candidate cannot be opened.
        OutputError: the report cannot be written.
    """
    pairs: list[Pair] = []
    warnings: list[str] = []
    crop = parse_crop(args.crop) if args.crop else None
    for folder in args.data:
        found = find_clips([folder], crop=crop)
        warnings += found.warnings
        clips = found.clips + [clip for clip, _ in found.unsupported]
        pairs += read_pairs(folder, clips, None if args.split == ALL else args.split)
    if args.split is None:
        args.split = split_to_read({pair.split for pair in pairs})
        if args.split == ALL:
            warnings.append(NO_TEST)
        else:
            pairs = [pair for pair in pairs if pair.split == args.split]
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    chosen = [pairs[i] for i in spread(range(len(pairs)), args.max_pairs)]
    make_output(args.output)
    ends = {clip.path: clip for pair in chosen for clip in (pair.source, pair.driving)}
    with open_candidate(args.candidate) as candidate:
        seen, said = training_facts(candidate, args.data, list(ends.values()))
        results = _evaluate(candidate, chosen, args.output, args.max_frames)
        facts = {**candidate.facts, **seen}
    warnings += said
    settings = settings_of(args)
    report = PredictionReport(command_line(args), facts, settings, results, warnings, args.seed)
    markdown, record = to_markdown(report), to_json(report)
    write_texts(args.output, markdown, record)
    print(record if args.json else markdown, end="")
    print(f"{summary_line(report)}\nwritten to {args.output}", file=sys.stderr)
    return 0


def _evaluate(
    candidate: Candidate, pairs: Sequence[Pair], output: Path, max_frames: int | None
) -> list[PairResult]:
    """Judge every pair and draw its strip as soon as it is done."""
    results = []
    rows = []
    for index, pair in enumerate(progress(pairs, label="evaluating pairs")):
        data = read_pair(pair, candidate.size, candidate.channels)
        result, pictures = predict(candidate, data, max_frames)
        results.append(result)
        strip = pair_strip(result, pictures, candidate.geometry)
        write_strip(output / "strips" / strip_name(index, pair.name), strip)
        rows.append(pair_row(result, pictures))
    write_strip(output / "overview.png", overview(rows))
    return results
