"""The command line of `live/`: `stream` and `serve`."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from .animator import Animator
from .bundle.bundle import Bundle
from .command_options import (
    add_burned_in,
    add_care,
    add_motion,
    add_open,
    add_reading,
    gpus_of,
    motion_of,
    opening_of,
    opening_on_ray,
    parse_landmarks,
    parse_reference,
    reading_of,
    to_people,
)
from .compose import parse_size
from .live.control import Control
from .live.feed import Feed, Pace
from .live.how import How
from .live.openigtlink.client import Client
from .live.openigtlink.outlet import GiveOrder, IgtlOutlet
from .live.openigtlink.server import PORT, Server
from .live.opening import (
    LIVE,
    Stills,
    files_beside,
    open_driving_feed,
    open_live,
    parse_address,
    parse_peer,
)
from .live.outlets import Outlet, check_recording, recorder
from .live.pairs import Still
from .live.remote import RemoteRenderer, on_cluster
from .live.renderer import AnyRenderer
from .live.running import run_stream
from .live.shared_memory import SharedMemoryOutlet
from .live.stream import Stream
from .live.studio import Studio
from .live.web.server import PORT as HTTP_PORT
from .live.web.server import Web
from .readers.reading import Facts, parse_rate
from .sinks.dicom import may_show_somebody
from .support.errors import (
    EXIT_DAMAGED,
    ConfigError,
    InputError,
    SonomimeError,
)
from .support.verbs import Verbs, add_ray, add_verb

log = logging.getLogger("sonomime")

Opener: TypeAlias = Callable[..., Animator | AnyRenderer]

STREAM = """animate a still image live, frame by frame

Animate a still image with what comes from a camera, another program, a clip or a motion template,
frame by frame, and pass the frames on at once. Every frame says whether it is live. While it runs,
each line that is typed is an order: source NAME, reference, pause, resume, scale S, shading off,
stop.

example:
  sonomime stream --source lung.png --driving breathing --loop --openigtlink 18944
  sonomime stream --source still.png --driving camera:0 --show --record lesson.mp4"""


SERVE = """animate live by a page in the browser

Serve a page on this machine: choose a source and what drives it, click landmarks, watch source,
driving and synthesized pictures beside each other, change the motion, record.

example:
  sonomime serve --show
  sonomime serve --sources stills/ --driving clips/ --openigtlink 18944
  sonomime serve --ray auto --threads 4"""


def add_stream(verbs: Verbs) -> None:
    """`sonomime stream`."""
    parser = add_verb(verbs, "stream", STREAM, run_stream_command)
    add = parser.add_argument
    # fmt: off
    add("--source", required=True, metavar="FILE|LIVE",
        help=f"the picture to animate: a file; or {LIVE}, whose newest frame is taken at first, by "
        "the order `source newest`, and every --source-every seconds")
    add("--driving", required=True, metavar="FILE|TEMPLATE|LIVE",
        help="what gives the motion: a clip, a motion template (NAME.npz or one of `sonomime "
        f"template list`), or {LIVE}")
    add("--loop", action="store_true", help="repeat a clip or template until stopped")
    add("--unpaced", action="store_true",
        help="animate a clip or template as fast as it goes, without dropping frames")
    add_open(parser)
    add_ray(parser, "make the frames", "the --bundle and the file of --landmarks")
    outlets = parser.add_argument_group("where the frames go (any of them)")
    outlets.add_argument("--openigtlink", metavar="[HOST:]PORT|igtl://HOST:PORT",
        help=f"OpenIGTLink: listen for clients at a port (usually {PORT}), of this machine alone "
        "unless HOST is given; or connect to a server")
    outlets.add_argument("--openigtlink-version", type=int, choices=(1, 2), default=2,
        help="header version: 1 for old programs, which get no metadata (default: 2)")
    outlets.add_argument("--record", type=Path, metavar="FILE",
        help="a new NAME.mp4, NAME.mkv (lossless), NAME.dcm, NAME.mha, or a folder for .png "
        "frames; NAME.mp4 and NAME.mkv grow as NAME.part, which can be "
        "played even after a power cut")
    outlets.add_argument("--http", metavar="[HOST:]PORT",
        help="a page to watch and control it, as MJPEG too; for this machine alone unless HOST is "
        "given")
    outlets.add_argument("--show", action="store_true",
        help="open that page in a browser (at a free port, unless --http says one)")
    outlets.add_argument("--shm", metavar="NAME",
        help="shared memory, for programs on this machine (examples/shared_memory.h)")
    add_motion(parser)
    add("--reference", type=parse_reference, default="first", metavar="first|N",
        help="the driving frame that shows the source's pose: the first, or number N of a clip; "
        "the order `reference` takes another")
    add("--on-cut", choices=("reset", "ignore"), default="reset",
        help="after a scene cut in the driving frames: take a new reference (default), or go on")
    add("--landmarks", type=parse_landmarks, default="auto", metavar="auto|none|FILE",
        help="how to align source and reference. auto (default): match the two pictures; FILE: "
        "also use the landmarks in this CSV file (image,keypoint,x,y), which are those of the "
        "first source and reference alone; none: do not align")
    add("--size", type=parse_size, default="source", metavar="source|model|WxH",
        help="size of the frames, at most 1920 pixels a side: the first source's own (default), "
        "the model's, or WIDTHxHEIGHT. Later sources are fitted into it")
    add("--source-every", type=float, metavar="S",
        help="take a live source's newest frame every so many seconds")
    add("--source-frame", type=int, default=0, metavar="N",
        help="which frame to animate if the source is a clip (default: 0)")
    add_reading(parser, "driving frames")
    add_reading(parser, "source", "source-")
    add("--fps", type=parse_rate, metavar="N",
        help="frames a second of a driving clip, whatever the file says")
    add_care(parser)
    add_burned_in(parser)
    add("--no-mark", dest="mark", action="store_false",
        help="leave out the synthetic mark, and the words for the state; metadata keep both")
    add("--seconds", type=float, metavar="S", help="end after so many seconds")
    add("--json", action="store_true", help="print a line of JSON about it each second")
    # fmt: on


def add_serve(verbs: Verbs) -> None:
    """`sonomime serve`."""
    parser = add_verb(verbs, "serve", SERVE, run_serve)
    add = parser.add_argument
    # fmt: off
    add("--http", default=str(HTTP_PORT), metavar="[HOST:]PORT",
        help=f"where to serve the page (default: {HTTP_PORT}), for this machine alone unless HOST "
        "is given; others then need the token that is printed")
    add("--sources", type=Path, metavar="FOLDER",
        help="source pictures to choose from (default: the samples that are included)")
    add("--driving", type=Path, metavar="FOLDER",
        help="driving clips to choose from, beside the motion templates (default: the samples)")
    add("--recordings", type=Path, default=Path("recordings"), metavar="FOLDER",
        help="where recordings go (default: recordings)")
    add("--openigtlink", metavar="[HOST:]PORT|igtl://HOST:PORT",
        help="also send the frames by OpenIGTLink: listen at a port, or connect to a server")
    add("--no-mark", dest="mark", action="store_false",
        help="leave out the synthetic mark, and the words for the state; metadata keep both")
    add("--show", action="store_true", help="open the page in a browser")
    add_open(parser)
    add_ray(parser, "make the frames", "the --bundle")
    # fmt: on


def run_serve(args: argparse.Namespace) -> int:
    """Run `sonomime serve` until it is interrupted."""
    for option in ("sources", "driving"):
        if (folder := getattr(args, option)) is not None and not folder.is_dir():
            raise InputError(f"--{option}: there is no folder {folder}", "check the path")
    bundle = Bundle.open(args.bundle)
    with _opener(args, bundle) as opened:
        first = opened()  # a backend that cannot serve is said now
        if isinstance(first, RemoteRenderer):
            first.check()
        first.close()
        _serve(args, bundle, opened)


def _serve(args: argparse.Namespace, bundle: Bundle, opened: Opener) -> NoReturn:
    web = None
    studio = Studio(bundle, opened, args.sources, args.driving, args.recordings, args.mark)
    try:
        if args.openigtlink:
            studio.outlets.add(_igtl(args.openigtlink, 2, studio.give_order))
        web = Web(studio, *parse_address(args.http, HTTP_PORT, "--http"))
        studio.outlets.add(web)
        _say_where(web, args.show)
        if not args.mark:
            log.warning("the synthetic mark and the words for the state are left out, as asked")
        while True:
            time.sleep(3600)
    finally:
        if web is not None:
            web.close()  # first, so that nobody starts another stream
        studio.close()


@contextmanager
def _opener(args: argparse.Namespace, bundle: Bundle) -> Iterator[Opener]:
    """What opens the model, here or on a Ray cluster; its arguments say how the motion is used.

    Raises:
        ConfigError, BackendError: what `opening_on_ray` and `on_cluster` raise.
    """
    if args.ray is None:
        yield partial(Animator.open, bundle, **opening_of(args))
        return
    opening, path = opening_on_ray(args), args.bundle and args.bundle.absolute()
    with on_cluster(args.ray, opening["threads"], gpus_of(args.backend)) as remote:
        there = partial(_open_there, path, bundle.digest, **opening)
        yield lambda **motion: remote(partial(there, **motion))


def _open_there(path: Path | None, digest: str, **how: Any) -> Animator:
    """On the cluster."""
    return Animator.open(Bundle.open(path, digest), **how)


def _say_where(web: Web, show: bool) -> None:
    to_people(f"page: {web.url}")
    if show and not webbrowser.open(web.url):
        log.warning("no browser could be opened; open the address yourself")


def run_stream_command(args: argparse.Namespace) -> int:
    """Run `sonomime stream`: 8 if the driving clip is damaged."""
    args.http = args.http or ("0" if args.show else None)
    if not (args.openigtlink or args.record or args.shm or args.http):
        hint = "give --show, --openigtlink 18944, --record out.mp4, --shm NAME, or several"
        raise ConfigError("the frames would go nowhere", hint)
    for name in ("seconds", "source_every"):
        if (value := getattr(args, name)) is not None and not 0 < value < 1e9:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is {value}", "give seconds, above 0")
    if args.record:
        check_recording(args.record)
    if args.ray is not None and isinstance(args.landmarks, Path):
        args.landmarks = args.landmarks.absolute()  # a worker may have another folder
    bundle = Bundle.open(args.bundle)
    chain = bundle.manifest
    how_source = reading_of(args, "source_")
    to_dicom = args.record is not None and args.record.suffix.lower() == ".dcm"
    burned_in: list[bool | None] = [True] if args.allow_burned_in else []  # of all sources

    def check(facts: Facts) -> None:
        if not to_dicom:
            return
        said = may_show_somebody(facts, args.allow_burned_in)
        burned_in.append(said)
        if not args.allow_burned_in and said is not burned_in[0]:
            hint = "end the stream, and record that source in a file of its own"
            what = (
                "the DICOM file that is recorded says otherwise whether it shows who was examined"
            )
            raise InputError(what, hint)

    source: Still | Feed | None = open_live(args.source, how_source)
    stills = None
    if source is None:
        path = Path(args.source)
        stills = Stills(files_beside(path), how_source, chain, to_people, check)
        source = stills.read(path.name, args.source_frame)
        if args.source_every is not None:
            raise ConfigError("--source-every is for live sources", "leave it out")
    elif args.source_frame:
        raise ConfigError("--source-frame is for files", f"leave it out: {args.source} is live")
    pace: Pace = "unpaced" if args.unpaced else "paced"
    driving = open_driving_feed(
        args.driving, reading_of(args), chain, pace, args.loop, args.reference, to_people
    )
    how = How(
        args.size, args.landmarks, args.mark, args.on_cut, driving.crop, args.loop,
        args.source_every,
    )  # fmt: skip
    if not args.mark:
        log.warning("the synthetic mark and the words for the state are left out, as asked")
    outlets: list[Outlet] = []
    output = sys.stdout  # Ray may write to it
    with (
        _opener(args, bundle) as opened,
        Stream(
            chain, partial(opened, **motion_of(args)), source, driving.feed, driving.template,
            driving.reference, how, stills,
        ) as stream,
    ):  # fmt: skip
        try:
            if args.openigtlink:
                version = args.openigtlink_version
                outlets.append(_igtl(args.openigtlink, version, stream.order))
            if args.record:
                outlets.append(
                    recorder(args.record, driving.feed.rate, (burned_in or [None])[0], args.unpaced)
                )
            if args.shm:
                outlets.append(SharedMemoryOutlet(args.shm))
            if args.http:
                about = {"source": args.source, "driving": args.driving, "loop": args.loop}
                control = Control(stream, about)
                web = Web(control, *parse_address(args.http, HTTP_PORT, "--http"))
                outlets.append(web)
                _say_where(web, args.show)
        except BaseException:
            for outlet in outlets:
                with suppress(SonomimeError):  # a recording without frames, for one
                    outlet.close()
            raise
        run_stream(stream, outlets, args.seconds, args.json, output)
    if args.record and not args.json:
        print(args.record)
    return EXIT_DAMAGED if driving.clip is not None and driving.clip.damaged else 0


def _igtl(text: str, version: int, order: GiveOrder) -> IgtlOutlet:
    """The outlet of --openigtlink."""
    if text.startswith("igtl:"):
        host, port = parse_peer(text)
        to_people(f"OpenIGTLink: connecting to {host}:{port}")
        return IgtlOutlet(text, partial(Client, host, port), order, version)
    host, port = parse_address(text, PORT, "--openigtlink")
    outlet = IgtlOutlet(f"OpenIGTLink {text}", partial(Server, port, host), order, version)
    to_people(f"OpenIGTLink: listening at {host}, port {port or outlet.port}")
    return outlet
