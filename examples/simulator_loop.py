"""A minimal simulator: a probe's angle drives a motion template, and 3D Slicer shows the picture.

    pip install "sonomime[cpu,live]"
    python simulator_loop.py lung.png breathing

Every frame asks for the template's time that belongs to the angle; nothing has to be played in
order. The frames go out by OpenIGTLink at port 18944, as the image `Image`: in 3D Slicer add a
connector of type client to localhost in the module OpenIGTLinkIF.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from sonomime.runtime import Animator
from sonomime.runtime.live.openigtlink.content import image_content
from sonomime.runtime.live.openigtlink.message import Message
from sonomime.runtime.live.openigtlink.server import PORT, Server
from sonomime.runtime.media.mark import draw_mark, metadata
from sonomime.runtime.player import Player
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.support.errors import SonomimeError
from sonomime.runtime.template import Template, template_file

RATE = 25  # frames a second


def probe_angle(seconds: float) -> float:
    """Degrees, from -20 to 20. Put your tracker here."""
    return 20 * math.sin(2 * math.pi * seconds / 4)


def run(still: Path, template: Path, seconds: float, server: Server) -> None:
    image = next(iter(open_source(still))).image
    texts = {"Synthetic": "YES", **metadata()}
    with Animator.open() as animator:
        animator.set_source(image)
        player = Player(animator, Template.load(template_file(template) or template))
        begin = time.monotonic()
        for number in range(round(seconds * RATE)):
            share = (probe_angle(number / RATE) + 20) / 40
            frame = draw_mark(player.frame(share * player.template.seconds, size="source"))
            message = Message("IMAGE", image_content(frame), "Image", time.time(), texts, number)
            server.send(message)
            time.sleep(max(0.0, begin + (number + 1) / RATE - time.monotonic()))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("still", type=Path)
    parser.add_argument("template", type=Path, help="a file, or one of `sonomime template list`")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--seconds", type=float, default=3600.0)
    args = parser.parse_args(arguments)
    try:
        with Server(args.port) as server:
            print(f"OpenIGTLink at localhost:{server.port}; Ctrl-C ends it", flush=True)
            run(args.still, args.template, args.seconds, server)
    except SonomimeError as error:
        raise SystemExit(f"error: {error}\nhint: {error.hint}") from None
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
