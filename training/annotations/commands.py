"""`sonomime annotations`: its verbs. Only argparse until one runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...runtime.support.verbs import Verbs, add_verb

ANNOTATIONS = """import and check labelled points of clips

Labelled points of clips, in keypoints.csv beside them.

example:
  sonomime annotations import annotations.xml --data clips/ --video a.mp4
  sonomime annotations import left.json right.json --data clips/ --rename "Bladder neck=neck"
  sonomime annotations check clips/ -o labels.png
  sonomime annotations check clips/ --strict"""
IMPORT = """put the points of other tools' files into keypoints.csv

Read points from files of annotation tools and add them to the keypoints.csv of a dataset folder:
Pair (JSON), CVAT for video 1.1 (XML), COCO keypoints (JSON), SlicerUltrasound's AnnotateUltrasound
(JSON), and JSON tables of points by frame (OnUVS). It says what was read, left out and assumed.
Rows that are there already stay.

example:
  sonomime annotations import annotations.xml --data clips/ --video a.mp4
  sonomime annotations import left.json right.json --data clips/ --rename "Bladder neck=neck"
"""
CHECK = """look at the labels before they are trained on

Read the labels of all clips of all splits, draw them, and say what is wrong with them: frames that
are not there, points beside the picture or the crop, points that jump, names that are perhaps
misspelt. Leaves with exit code 8 if a labelled clip is damaged or cannot be read.

example:
  sonomime annotations check clips/ -o labels.png
  sonomime annotations check clips/ --strict"""
FORMATS = ("pair", "cvat", "coco", "slicer", "onuvs")  # as in formats.py, which is not imported


def add_annotations(sub: Verbs) -> None:
    """Register ``sonomime annotations``."""
    parser = add_verb(sub, "annotations", ANNOTATIONS, None)
    verbs = parser.add_subparsers(
        title="verbs", metavar="VERB", dest="annotations_verb", required=True
    )
    _add_import(verbs)
    _add_check(verbs)


def _add_import(verbs: Verbs) -> None:
    add = add_verb(verbs, "import", IMPORT, import_command).add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="files of one tool or of several")
    text = "folder of the clips, which gets keypoints.csv"
    add("--data", type=Path, required=True, metavar="DIR", help=text)
    add("--format", choices=FORMATS, help="of all files (default: by their content)")
    text = "the clip that the files are of, if they do not say it or call it by another name"
    add("--video", metavar="NAME", help=text)
    text = "give a point another name; may be given several times"
    add("--rename", action="append", default=[], metavar="OLD=NEW", help=text)
    text = "what 0 is: the first pixel's centre or its outer corner (default: as the format has it)"
    add("--origin", choices=("centre", "corner"), help=text)
    text = "millimetres from one pixel to the next, for files in millimetres (slicer)"
    add("--spacing", metavar="X,Y", help=text)
    add("--replace", action="store_true", help="replace rows that say something else")
    add("--json", action="store_true", help="print what was done as JSON")


def _add_check(verbs: Verbs) -> None:
    add = add_verb(verbs, "check", CHECK, check_command).add_argument
    add("data", nargs="+", type=Path, metavar="DIR", help="folders with a keypoints.csv")
    text = "draw labelled frames with their points: all, or evenly spread ones"
    add("-o", "--output", type=Path, metavar="SHEET.png", help=text)
    text = "region of every clip, pixels of the original frame; auto: it is found"
    add("--crop", metavar="X,Y,W,H|auto", help=text)
    add("--json", action="store_true", help="print all of it as JSON")
    add("--strict", action="store_true", help="exit code 6 if there is any problem")


def import_command(args: argparse.Namespace) -> int:
    """Run ``sonomime annotations import``."""
    import json
    from dataclasses import asdict

    from ...runtime.support.errors import ConfigError
    from ...runtime.support.printable import printable
    from .importing import Wish, import_annotations
    from .report import import_lines

    rename = {}
    for word in args.rename:
        old, equals, new = word.partition("=")
        if not (old and equals and new):
            raise ConfigError(f"--rename {word!r} is not OLD=NEW", '--rename "Bladder neck=neck"')
        rename[old] = new
    corner = None if args.origin is None else args.origin == "corner"
    spacing = _spacing(args.spacing) if args.spacing else None
    wish = Wish(args.format, args.video, rename, corner, spacing, args.replace)
    done = import_annotations(args.files, args.data, wish)
    if args.json:
        print(json.dumps(asdict(done), default=str, indent=2))
    else:
        for line in import_lines(done):
            print(printable(line))
    return 0


def check_command(args: argparse.Namespace) -> int:
    """Run ``sonomime annotations check``."""
    import json

    from ...runtime.media.contact_sheet import check_sheet
    from ...runtime.media.frames import parse_crop
    from ...runtime.support.errors import EXIT_DAMAGED, InputError
    from ...runtime.support.printable import printable
    from .checking import check_labels
    from .report import check_lines, check_record

    check_sheet(args.output)
    done = check_labels(args.data, parse_crop(args.crop) if args.crop else None, args.output)
    if args.json:
        print(json.dumps(check_record(done), indent=2))
    else:
        for line in check_lines(done):
            print(printable(line))
    if args.output is not None and done.shown < done.labelled:
        said = f"{args.output} shows {done.shown} of {done.labelled} labelled frames"
        print(printable(said), file=sys.stderr)
    if args.strict and done.problems:
        count = len(done.problems)
        raise InputError(f"there are problems: {count}", "see above; without --strict they pass")
    return 0 if all(clip.state == "ok" for clip in done.clips) else EXIT_DAMAGED


def _spacing(text: str) -> tuple[float, float]:
    from ...runtime.support.errors import ConfigError

    try:
        x, y = (float(part) for part in text.split(","))
        if 0 < x < 1e3 and 0 < y < 1e3:
            return x, y
    except ValueError:
        pass
    raise ConfigError(f"--spacing is {text!r}", "two numbers above 0, e.g. --spacing 0.2,0.2")
