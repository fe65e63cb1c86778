"""`sonomime study`: registration (argparse only) and the runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...runtime.support.verbs import Verbs, add_verb
from ..evaluation.command import whole

STUDY = """let people rate clips without knowing which are real

A reader study: make it, serve it to each rater, report what came out.

example:
  sonomime study make study/ --arm real=clips/ --arm fomm=fomm/ --arm ours=ours/
  sonomime study serve study/ --rater anna
  sonomime study report study/ -o report/"""
MAKE = """make a study of folders of clips

Make a study of folders of clips, the arms. Files of the same stem are the same case, and every
rater sees every case of every arm. All clips are made alike: grey, same size, rate and codec, those
of a case cut to the shortest, metadata removed, under names that say nothing. Nothing is marked as
synthetic in the picture, since the study must be blind; the page says that the clips include
synthetic ones. key.json alone says which clip is what: keep it from the raters.

example:
  sonomime study make study/ --arm real=clips/ --arm fomm=fomm/ --arm ours=ours/
  sonomime study make study/ --arm real=clips/ --arm ours=ours/ --raters 6 \\
      --real-or-fake --question "How good is this clip?"
"""
SERVE = """show a study to one rater

Serve the page on which one rater rates the clips, and print its address. Every answer is saved at
once in answers/RATER.csv. Ctrl-C stops it; the same command goes on where the rater stopped. Start
one for each rater, each with its own port. Beyond this computer (--bind) the address has a token;
what passes is not encrypted.

example:
  sonomime study serve study/ --rater anna
  sonomime study serve study/ --rater ben --bind 0.0.0.0 --port 8800"""
REPORT = """say what came out of a study

Open the key and say what came out: means and distributions by arm, differences, 95 % intervals over
raters and cases, agreement between raters and on the hidden repeats.

example:
  sonomime study report study/
  sonomime study report study/ -o report/ --key sealed/key.json"""
PORT = 8722


def add_study(sub: Verbs) -> None:
    """Register `sonomime study`."""
    parser = add_verb(sub, "study", STUDY, None)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="study_verb", required=True)
    _add_make(verbs)
    _add_serve(verbs)
    _add_report(verbs)


def _add_make(verbs: Verbs) -> None:
    add = add_verb(verbs, "make", MAKE, run_make).add_argument
    add("study", type=Path, metavar="STUDY_DIR", help="a folder that is new or empty")
    text = "an arm and its clips: videos or folders of frames, or a dataset folder; twice or more"
    add("--arm", action="append", required=True, metavar="NAME=FOLDER", help=text)
    text = "how many raters to plan for (default: 4)"
    add("--raters", type=whole(1, 1000), default=4, metavar="N", help=text)
    text = "how many clips a rater sees twice without being told (default: a fifth)"
    add("--repeats", type=whole(0, 100_000), metavar="N", help=text)
    text = "seed of names and orders (default: drawn; key.json keeps it)"
    add("--seed", type=whole(0, 2**63 - 1), metavar="S", help=text)
    text = "what is asked about each clip, rated from 1, worst, to 5, best"
    add("--question", metavar="TEXT", help=text)
    text = "ask too whether a clip is real; the arm with the real ones is called real"
    add("--real-or-fake", action="store_true", help=text)
    text = "size of all clips in pixels (default: of the smallest one)"
    add("--size", metavar="WxH", help=text)
    text = "frames a second of all clips, whatever their files say"
    add("--fps", metavar="R", help=text)


def _add_serve(verbs: Verbs) -> None:
    add = add_verb(verbs, "serve", SERVE, run_serve).add_argument
    add("study", type=Path, metavar="STUDY_DIR", help="a folder made by `sonomime study make`")
    text = "who rates: a code rather than a name, which would be personal data"
    add("--rater", required=True, metavar="NAME", help=text)
    text = f"port, 0 for any that is free (default: {PORT})"
    add("--port", type=whole(0, 65_535), default=PORT, metavar="N", help=text)
    text = "address to listen at (default: 127.0.0.1, this computer alone)"
    add("--bind", default="127.0.0.1", metavar="ADDRESS", help=text)


def _add_report(verbs: Verbs) -> None:
    add = add_verb(verbs, "report", REPORT, run_report).add_argument
    add("study", type=Path, metavar="STUDY_DIR", help="a folder with answers")
    text = "folder for report.md, report.json and ratings.png"
    add("-o", "--output", type=Path, metavar="DIR", help=text)
    text = "where the key is (default: STUDY_DIR/key.json)"
    add("--key", type=Path, metavar="FILE", help=text)
    add("--json", action="store_true", help="print report.json, not the report")


def run_make(args: argparse.Namespace) -> int:
    """Run `sonomime study make`. Raises what `make` raises."""
    from ...runtime.readers.reading import parse_rate
    from ...runtime.support.errors import EXIT_DAMAGED
    from .arms import parse_arms
    from .clips import parse_size
    from .make import QUESTION, make

    made = make(
        args.study,
        parse_arms(args.arm),
        lambda line: _say(f"warning: {line}"),
        raters=args.raters,
        repeats=args.repeats,
        seed=args.seed,
        question=QUESTION if args.question is None else args.question,
        real_or_fake=args.real_or_fake,
        size=parse_size(args.size) if args.size else None,
        fps=parse_rate(args.fps) if args.fps else None,
    )
    print(args.study)
    cases = f"{made.cases} cases in {len(args.arm)} arms" if made.cases else "no case in two arms"
    least, most = made.frames
    frames = str(least) if least == most else f"{least} to {most}"
    _say(
        f"{made.clips} clips ({cases}) of {'x'.join(map(str, made.size))} pixels, {frames} frames; "
        f"orders for {args.raters} raters, each with {made.repeats} hidden repeats"
    )
    _say(f"keep {args.study / 'key.json'} from the raters: it says which clip is what")
    return EXIT_DAMAGED if made.damaged else 0


def run_serve(args: argparse.Namespace) -> int:
    """Run `sonomime study serve` until a signal comes. Raises what `serving` raises."""
    from .serve import serving

    with serving(args.study, args.rater, args.bind, args.port) as server:
        print(server.url, flush=True)
        _say(f"serving {args.rater}: open that address in a browser; Ctrl-C stops")
        if server.token:
            _say("others can reach this page; what passes is not encrypted")
        try:
            server.serve_forever()
        except KeyboardInterrupt as stop:  # the way to end it
            _say(f"stopped; {args.study / 'answers'} has every answer, the same command goes on")
            return int(getattr(stop, "exit_code", 0))
    return 0


def run_report(args: argparse.Namespace) -> int:
    """Run `sonomime study report`. Raises what `analyse` raises."""
    import json

    from ...runtime.media.frames import png_bytes
    from ...runtime.support.atomic_files import atomic_write_bytes, atomic_write_text
    from ...runtime.support.printable import printable
    from .analysis import analyse
    from .chart import draw_chart
    from .report import markdown

    record = analyse(args.study, args.key or args.study / "key.json")
    data = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    text = markdown(record)
    if args.output is not None:
        atomic_write_bytes(args.output / "ratings.png", png_bytes(draw_chart(record)))
        atomic_write_text(args.output / "report.json", data)
        atomic_write_text(args.output / "report.md", f"{text}\n![ratings](ratings.png)\n")
    print(data if args.json else printable(text), end="")
    return 0


def _say(line: str) -> None:
    from ...runtime.support.printable import printable

    print(printable(line), file=sys.stderr, flush=True)
