"""Weights files: which are read, which are refused, and what the errors name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from sonomime.runtime.support.errors import CheckpointError, ConfigError
from sonomime.runtime.support.plain_file import sha256_file
from sonomime.training.evaluation.networks.catalogue import KINDS, open_networks
from sonomime.training.evaluation.networks.perceptual_distance import alexnet_layers
from sonomime.training.evaluation.networks.squeezenet import SqueezeNet
from sonomime.training.evaluation.networks.weights import Given, parse_network

DIGEST = "0123456789abcdef" * 4


class Evil:
    def __reduce__(self) -> Any:
        return print, ("code ran",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """squeezenet.pth and alexnet.pth with random weights, lins.pth, and files that are none."""
    here = tmp_path_factory.mktemp("weights")
    state = SqueezeNet().state_dict()
    torch.save(state | {"classifier.1.bias": torch.zeros(1000)}, here / "squeezenet.pth")
    layers = torch.nn.ModuleList(alexnet_layers()).state_dict()
    torch.save({f"features.{key}": value for key, value in layers.items()}, here / "alexnet.pth")
    channels = (64, 192, 384, 256, 256)
    lins = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(channels)}
    torch.save(lins, here / "lins.pth")
    first = next(iter(state))
    torch.save({key: value for key, value in state.items() if key != first}, here / "lacks.pth")
    torch.save(state | {first: torch.zeros(1)}, here / "shape.pth")
    torch.save({"weights": Evil()}, here / "evil.pth")
    torch.save([1, 2], here / "list.pth")
    (here / "text.pth").write_text("no weights")
    with zipfile.ZipFile(here / "script.pth", "w") as archive:  # as TorchScript is packed
        for part in ("data.pkl", "constants.pkl", "code/net.py"):
            archive.writestr(f"script/{part}", "import os")
    return here


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("a=b.pth", [("b.pth", None)]),
        ("A_1=/x/b=c.pth,d@2x.pth", [("/x/b=c.pth", None), ("d@2x.pth", None)]),
        (f"a=b.pth@{DIGEST.upper()},c", [("b.pth", DIGEST), ("c", None)]),
    ],
)
def test_a_network_is_a_name_with_files(text: str, files: list[tuple[str, str | None]]) -> None:
    name, given = parse_network(text)
    assert name == text.partition("=")[0]
    assert given == [Given(Path(path), digest) for path, digest in files]


@pytest.mark.parametrize("text", ["", "a", "a=", "=b", "a=b,", "a b=c", "1=b"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_networks([text])
    assert "FILE" in caught.value.hint


def test_a_file_that_was_not_published_is_taken_only_with_its_digest(folder: Path) -> None:
    path = folder / "squeezenet.pth"
    digest = sha256_file(path)
    with pytest.raises(CheckpointError) as caught:
        open_networks([f"squeezenet={path}"])
    assert digest in caught.value.message and f"@{digest}" in caught.value.hint
    with pytest.raises(CheckpointError):
        open_networks([f"squeezenet={path}@{DIGEST}"])
    (network,) = open_networks([f"squeezenet={path}@{digest}"])
    assert (network.sha256, network.given) == ([digest], f"squeezenet={path}@{digest}")
    assert not network.published
    held = torch.load(path)["features.0.weight"]
    assert torch.equal(network.module.features[0].weight, held)
    assert not network.module.training and not any(
        p.requires_grad for p in network.module.parameters()
    )


@pytest.mark.parametrize("name", ["lacks", "shape", "evil", "list", "text", "script"])
def test_what_is_not_the_weights_of_the_network_is_refused(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / f"{name}.pth"
    with pytest.raises(CheckpointError) as caught:
        open_networks([f"squeezenet={path}@{sha256_file(path)}"])
    assert str(path) in caught.value.message and caught.value.hint
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_file_is_named_with_where_it_is_published(name: str, tmp_path: Path) -> None:
    files = KINDS[name].files
    given = ",".join(str(tmp_path / f"{i}.pth") for i in range(len(files)))
    with pytest.raises(CheckpointError) as caught:
        open_networks([f"{name}={given}"])
    assert str(tmp_path / "0.pth") in caught.value.message
    for file in files:
        assert file.project in caught.value.hint
        assert all(published in caught.value.hint for published in file.digests)
        assert all(len(digest) == 64 for digest in file.digests.values())
    # torch's and pytorch-fid's names end in the first digits of the digest.
    for published, digest in (each for file in files for each in file.digests.items()):
        stem = published.split(".")[0].rpartition("-")[2]
        assert digest.startswith(stem) or len(stem) != 8


def test_another_metric_has_the_layout_of_lpips_and_no_official_name(folder: Path) -> None:
    files = f"{folder / 'alexnet.pth'},{folder / 'lins.pth'}"
    (network,) = open_networks([f"ultrapips={files}"])
    assert network.kind.pair == "ultrapips" and len(network.sha256) == 2 and network.published
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        a, b = network.module(image), network.module(image.flip(-1))
        assert network.module.distance(a, b) > 0 == network.module.distance(a, a)
    for name in ("LPIPS", "lpips_squeeze", "fid", "FVD", "fd_squeeze"):
        with pytest.raises(ConfigError):
            open_networks([f"{name}={files}"])
    with pytest.raises(ConfigError):  # two files are needed
        open_networks([f"ultrapips={folder / 'alexnet.pth'}"])
    with pytest.raises(ConfigError):
        open_networks([f"ultrapips={files}"] * 2)
    with pytest.raises(CheckpointError):  # a trunk of another kind
        open_networks([f"other={folder / 'squeezenet.pth'},{folder / 'lins.pth'}"])
