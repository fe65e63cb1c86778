"""import-fomm against a forward of torch.nn.functional alone, straight from FOMM's keys."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from sonomime.cli import main
from sonomime.export.fomm import fomm_name, import_fomm, read_fomm_config, rename
from sonomime.runtime.support.errors import CheckpointError, ConfigError, OutputError
from sonomime.training.checkpoint import load_checkpoint
from sonomime.training.config import ModelConfig
from sonomime.training.models.keypoints.model import AnimationModel

State = dict[str, Tensor]

SMALL: dict[str, Any] = {
    "dataset_params": {"root_dir": "data/x", "frame_shape": [256, 256, 3]},
    "model_params": {
        "common_params": {"num_kp": 3, "num_channels": 3, "estimate_jacobian": True},
        "kp_detector_params": {
            "temperature": 0.1,
            "block_expansion": 4,
            "max_features": 16,
            "scale_factor": 0.25,
            "num_blocks": 3,
        },
        "generator_params": {
            "block_expansion": 4,
            "max_features": 12,
            "num_down_blocks": 2,
            "num_bottleneck_blocks": 2,
            "estimate_occlusion_map": True,
            "dense_motion_params": {
                "block_expansion": 5,
                "max_features": 24,
                "num_blocks": 4,
                "scale_factor": 0.25,
            },
        },
        "discriminator_params": {"scales": [1], "block_expansion": 32, "sn": True},
    },
    "train_params": {"num_epochs": 100, "anything": {"at": "all"}},
}


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """SMALL with ``section.key`` of model_params set, or removed when the value is ``...``."""
    table = copy.deepcopy(SMALL)
    for path, value in changes:
        *sections, last = path.split(".")
        section = table["model_params"]
        for name in sections:
            section = section[name]
        if value is ...:
            del section[last]
        else:
            section[last] = value
    return table


VARIANT = changed(
    ("common_params.num_kp", 5),
    ("kp_detector_params.num_blocks", 2),
    ("kp_detector_params.pad", 0),
    ("kp_detector_params.single_jacobian_map", False),
    ("generator_params.num_down_blocks", 3),
    ("generator_params.num_bottleneck_blocks", 1),
    ("generator_params.dense_motion_params.kp_variance", 0.02),
)
PAPER = changed(
    ("common_params.num_kp", 10),
    ("kp_detector_params.block_expansion", 32),
    ("kp_detector_params.max_features", 1024),
    ("kp_detector_params.num_blocks", 5),
    ("generator_params.block_expansion", 64),
    ("generator_params.max_features", 512),
    ("generator_params.num_bottleneck_blocks", 6),
    ("generator_params.dense_motion_params.block_expansion", 64),
    ("generator_params.dense_motion_params.max_features", 1024),
    ("generator_params.dense_motion_params.num_blocks", 5),
)


# -- a checkpoint by names and shapes -------------------------------------------------------------


class Maker:
    """Fills a state dict with random tensors whose activations stay around 1."""

    def __init__(self, seed: int, tracked: bool, device: str = "cpu") -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.tracked = tracked
        self.device = device
        self.state: State = {}

    def draw(self, key: str, shape: tuple[int, ...], scale: float, shift: float = 0.0) -> None:
        if self.device == "meta":
            self.state[key] = torch.empty(shape, device="meta")
        else:
            self.state[key] = scale * torch.randn(shape, generator=self.random) + shift

    def conv(self, key: str, inputs: int, outputs: int, kernel: int, gain: float = 1.4) -> None:
        shape = (outputs, inputs, kernel, kernel)
        self.draw(f"{key}.weight", shape, gain / (inputs * kernel * kernel) ** 0.5)
        self.draw(f"{key}.bias", (outputs,), 0.1)

    def norm(self, key: str, width: int) -> None:
        self.draw(f"{key}.weight", (width,), 0.2, 1.0)
        self.draw(f"{key}.bias", (width,), 0.2)
        self.draw(f"{key}.running_mean", (width,), 0.2)
        self.draw(f"{key}.running_var", (width,), 0.2, 1.0)
        if self.device == "cpu":
            self.state[f"{key}.running_var"].abs_().add_(0.1)
        if self.tracked:
            self.state[f"{key}.num_batches_tracked"] = torch.tensor(12345, device=self.device)

    def block(self, key: str, inputs: int, outputs: int, kernel: int = 3) -> None:
        self.conv(f"{key}.conv", inputs, outputs, kernel)
        self.norm(f"{key}.norm", outputs)

    def hourglass(self, key: str, inputs: int, params: dict[str, Any]) -> int:
        width, most, depth = (
            params[name] for name in ("block_expansion", "max_features", "num_blocks")
        )
        for i in range(depth):
            before = inputs if i == 0 else min(most, width * 2**i)
            self.block(f"{key}.encoder.down_blocks.{i}", before, min(most, width * 2 ** (i + 1)))
        for n in range(depth):
            i = depth - 1 - n
            before = min(most, width * 2 ** (i + 1)) * (1 if n == 0 else 2)
            self.block(f"{key}.decoder.up_blocks.{n}", before, min(most, width * 2**i))
        return int(width + inputs)

    def down(self, key: str, channels: int) -> None:
        # A little off the textbook's Gaussian: the kernel must come from the file.
        line = torch.exp(-((torch.arange(13.0) - 6) ** 2) / (2 * 1.6**2))
        kernel = torch.outer(line, line) / line.sum() ** 2
        self.state[key] = kernel.expand(channels, 1, 13, 13).to(self.device, copy=True)


def make_fomm(
    table: dict[str, Any], seed: int = 0, tracked: bool = True, device: str = "cpu"
) -> dict[str, Any]:
    """What FOMM's training saves for this YAML table, with random numbers."""
    params = table["model_params"]
    points, channels = (params["common_params"][name] for name in ("num_kp", "num_channels"))
    detector = Maker(seed, tracked, device)
    detector.down("down.weight", channels)
    width = detector.hourglass("predictor", channels, params["kp_detector_params"])
    detector.conv("kp", width, points, 7, gain=1.0)
    detector.conv("jacobian", width, 4 * points, 7, gain=0.3)
    if device == "cpu":
        detector.state["jacobian.bias"] += torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(points)

    maker, settings = Maker(seed + 1, tracked, device), params["generator_params"]
    motion = "dense_motion_network"
    maker.down(f"{motion}.down.weight", channels)
    inputs = (points + 1) * (channels + 1)
    width = maker.hourglass(f"{motion}.hourglass", inputs, settings["dense_motion_params"])
    maker.conv(f"{motion}.mask", width, points + 1, 7)
    maker.conv(f"{motion}.occlusion", width, 1, 7)
    downs = settings["num_down_blocks"]
    widths = [
        min(settings["max_features"], settings["block_expansion"] * 2**i) for i in range(downs + 1)
    ]
    maker.block("first", channels, widths[0], 7)
    for i in range(downs):
        maker.block(f"down_blocks.{i}", widths[i], widths[i + 1])
        maker.block(f"up_blocks.{i}", widths[downs - i], widths[downs - i - 1])
    for i in range(settings["num_bottleneck_blocks"]):
        for n in (1, 2):
            maker.conv(f"bottleneck.r{i}.conv{n}", widths[-1], widths[-1], 3)
            maker.norm(f"bottleneck.r{i}.norm{n}", widths[-1])
    maker.conv("final", widths[0], channels, 7)
    return {
        "generator": maker.state,
        "kp_detector": detector.state,
        "discriminator": {"whatever": torch.zeros(3)},
        "optimizer_generator": {"state": {}, "param_groups": [{"lr": 2e-4, "betas": (0.5, 0.999)}]},
        "epoch": 99,
    }


# -- the forward pass, from METHOD.md, of functions alone -----------------------------------------


class Expected(NamedTuple):
    source: tuple[Tensor, Tensor]
    driving: tuple[Tensor, Tensor]
    deformation: Tensor
    occlusion: Tensor
    prediction: Tensor


def conv(s: State, key: str, x: Tensor, padding: int) -> Tensor:
    return F.conv2d(x, s[f"{key}.weight"], s[f"{key}.bias"], padding=padding)


def norm(s: State, key: str, x: Tensor) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    mean, var, weight, bias = (s[f"{key}.{name}"][:, None, None] for name in names)
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def block(s: State, key: str, x: Tensor, padding: int = 1) -> Tensor:
    return F.relu(norm(s, f"{key}.norm", conv(s, f"{key}.conv", x, padding)))


def hourglass(s: State, key: str, x: Tensor, depth: int) -> Tensor:
    skips = [x]
    for i in range(depth):
        skips.append(F.avg_pool2d(block(s, f"{key}.encoder.down_blocks.{i}", skips[-1]), 2))
    x = skips.pop()
    for i in range(depth):
        x = block(s, f"{key}.decoder.up_blocks.{i}", F.interpolate(x, scale_factor=2))
        x = torch.cat([x, skips.pop()], dim=1)
    return x


def quarter(s: State, key: str, x: Tensor) -> Tensor:
    blurred = F.conv2d(F.pad(x, (6, 6, 6, 6)), s[key], groups=x.shape[1])
    return blurred[:, :, ::4, ::4]


def centres(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    return torch.stack([x, y], dim=-1)


def keypoints(s: State, params: dict[str, Any], image: Tensor) -> tuple[Tensor, Tensor]:
    feature = hourglass(s, "predictor", quarter(s, "down.weight", image), params["num_blocks"])
    logits = conv(s, "kp", feature, 0)
    b, k, h, w = logits.shape
    heatmap = torch.softmax(logits.flatten(2) / params["temperature"], dim=2)
    value = torch.einsum("bkn,nc->bkc", heatmap, centres(h, w).view(-1, 2))
    maps = conv(s, "jacobian", feature, 0).view(b, k, 2, 2, h * w)
    return value, torch.einsum("bkn,bkijn->bkij", heatmap, maps)


def read(x: Tensor, where: Tensor) -> Tensor:
    return F.grid_sample(x, where, mode="bilinear", padding_mode="zeros", align_corners=False)


def forward(
    payload: dict[str, Any], table: dict[str, Any], source: Tensor, driving: Tensor
) -> Expected:
    params, s = table["model_params"], payload["generator"]
    settings = params["generator_params"]
    motion_settings = settings["dense_motion_params"]
    detected = [
        keypoints(payload["kp_detector"], params["kp_detector_params"], image)
        for image in (source, driving)
    ]
    (p_s, j_s), (p_d, j_d) = detected
    small = quarter(s, "dense_motion_network.down.weight", source)
    h, w = small.shape[2:]
    grid = centres(h, w)
    variance = motion_settings.get("kp_variance", 0.01)
    motions, slots = [grid.expand(len(source), h, w, 2)], []
    for k in range(p_s.shape[1]):
        affine = j_s[:, k] @ torch.linalg.inv(j_d[:, k])
        offset = grid[None] - p_d[:, k, None, None]
        motions.append(torch.einsum("bij,bhwj->bhwi", affine, offset) + p_s[:, k, None, None])
    for k, moved in enumerate(motions):
        heat = torch.zeros(len(source), 1, h, w)
        if k > 0:
            near = [
                torch.exp(-((grid[None] - p[:, k - 1, None, None]) ** 2).sum(-1) / (2 * variance))
                for p in (p_d, p_s)
            ]
            heat = (near[0] - near[1])[:, None]
        slots += [heat, read(small, moved)]
    feature = hourglass(
        s, "dense_motion_network.hourglass", torch.cat(slots, 1), motion_settings["num_blocks"]
    )
    masks = torch.softmax(conv(s, "dense_motion_network.mask", feature, 3), dim=1)
    deformation = sum(masks[:, k, :, :, None] * moved for k, moved in enumerate(motions))
    assert isinstance(deformation, Tensor)
    occlusion = torch.sigmoid(conv(s, "dense_motion_network.occlusion", feature, 3))

    x = block(s, "first", source, 3)
    for i in range(settings["num_down_blocks"]):
        x = F.avg_pool2d(block(s, f"down_blocks.{i}", x), 2)
    size, where, shade = x.shape[2:], deformation, occlusion
    if tuple(size) != (h, w):
        where = F.interpolate(deformation.permute(0, 3, 1, 2), size=size, mode="bilinear")
        where = where.permute(0, 2, 3, 1)
        shade = F.interpolate(occlusion, size=size, mode="bilinear")
    x = read(x, where) * shade
    for i in range(settings["num_bottleneck_blocks"]):
        key = f"bottleneck.r{i}"
        y = conv(s, f"{key}.conv1", F.relu(norm(s, f"{key}.norm1", x)), 1)
        x = x + conv(s, f"{key}.conv2", F.relu(norm(s, f"{key}.norm2", y)), 1)
    for i in range(settings["num_down_blocks"]):
        x = block(s, f"up_blocks.{i}", F.interpolate(x, scale_factor=2))
    prediction = torch.sigmoid(conv(s, "final", x, 3))
    return Expected(detected[0], detected[1], deformation, occlusion, prediction)


# -- tests ----------------------------------------------------------------------------------------


class Files(NamedTuple):
    pth: Path
    yaml: Path
    out: Path

    def run(self) -> Path:
        return import_fomm(*self)


def write(folder: Path, payload: Any, table: Any) -> Files:
    files = Files(folder / "fomm.pth.tar", folder / "fomm.yaml", folder / "imported.pt")
    torch.save(payload, files.pth)
    files.yaml.write_text(yaml.safe_dump(table))
    return files


def smooth_image(seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 8, 8, generator=random)
    return F.interpolate(coarse, size=(256, 256), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize(
    ("table", "tracked"), [(SMALL, True), (VARIANT, False)], ids=["small", "variant"]
)
def test_numbers_are_those_of_a_functional_forward(
    tmp_path: Path, table: dict[str, Any], tracked: bool
) -> None:
    payload = make_fomm(table, seed=3, tracked=tracked)
    out = write(tmp_path, payload, table).run()
    model = load_checkpoint(out).model()
    source, driving = smooth_image(1), smooth_image(2)
    with torch.no_grad():
        expected = forward(payload, table, source, driving)
        encoded = model.encode(source)
        found = model.keypoint_detector(driving)
        prediction, motion = model.animate(encoded, found)
    for ours, theirs in (
        (encoded.keypoints.value, expected.source[0]),
        (encoded.keypoints.jacobian, expected.source[1]),
        (found.value, expected.driving[0]),
        (found.jacobian, expected.driving[1]),
        (motion.deformation, expected.deformation),
        (motion.occlusion_map, expected.occlusion),
        (prediction.image, expected.prediction),
    ):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 1e-4
    # The random networks must say something, or agreement would prove nothing.
    assert torch.linalg.det(expected.driving[1]).abs().min() > 0.05
    assert (expected.source[0] - expected.driving[0]).abs().max() > 0.01
    assert expected.occlusion.std() > 0.01
    assert (expected.deformation - centres(64, 64)).std() > 0.02
    assert expected.prediction.std() > 0.05


def test_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write(tmp_path, make_fomm(SMALL), SMALL).run())
    model = checkpoint.config.model
    assert (checkpoint.step, checkpoint.config.preset, model.geometry) == (0, "fomm", "fomm")
    assert (model.keypoints.self_supervised, model.keypoints.supervised) == (3, 0)
    (origin,) = checkpoint.data
    assert origin["name"] == "FOMM checkpoint fomm.pth.tar" and "CC BY-NC" in origin["licence"]
    assert checkpoint.resume == {}


def test_weights_are_taken_as_they_are(tmp_path: Path) -> None:
    payload = make_fomm(SMALL)
    weights = load_checkpoint(write(tmp_path, payload, SMALL).run()).weights
    theirs = {
        f"{net}/{k}": t for net in ("generator", "kp_detector") for k, t in payload[net].items()
    }
    assert {fomm_name(ours) for ours in weights} == theirs.keys()
    for ours, tensor in weights.items():
        assert torch.equal(tensor, theirs[fomm_name(ours)]), ours


def test_counts_of_the_paper_at_full_size() -> None:
    payload = make_fomm(PAPER, device="meta")
    tensors = {
        f"{net}/{k}": t for net in ("generator", "kp_detector") for k, t in payload[net].items()
    }
    config = read_config(PAPER)
    weights = rename(tensors, config, Path("full.pth.tar"))
    with torch.device("meta"):
        learned = {name for name, _ in AnimationModel(config).named_parameters()}
    count = {True: 0, False: 0}
    for name, tensor in weights.items():
        count[name.startswith("keypoint_detector.")] += tensor.numel() * (name in learned)
    assert count == {True: 14_215_368, False: 45_575_391}


def read_config(table: dict[str, Any]) -> ModelConfig:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fomm.yaml"
        path.write_text(yaml.safe_dump(table))
        return read_fomm_config(path).model


def test_every_size_of_the_yaml_is_read() -> None:
    model = read_config(VARIANT)
    assert (model.channels, model.image_size, model.keypoints.count) == (3, 256, 5)
    assert (model.keypoints.width, model.keypoints.max_features, model.keypoints.depth) == (
        4,
        16,
        2,
    )
    assert (model.motion.width, model.motion.max_features, model.motion.depth) == (5, 24, 4)
    assert (model.motion.variance, model.keypoints.temperature) == (0.02, 0.1)
    assert (model.generator.width, model.generator.max_features) == (4, 12)
    assert (model.generator.downs, model.generator.blocks, model.generator.kind) == (3, 1, "single")


@pytest.mark.parametrize("network", ["generator", "kp_detector"])
def test_missing_tensor_is_named(tmp_path: Path, network: str) -> None:
    payload = make_fomm(SMALL)
    gone = (
        "first.conv.bias" if network == "generator" else "predictor.decoder.up_blocks.0.norm.weight"
    )
    del payload[network][gone]
    files = write(tmp_path, payload, SMALL)
    with pytest.raises(CheckpointError, match=f"lacks {network}/{gone}"):
        files.run()
    assert not files.out.exists()


def test_left_over_tensor_is_named(tmp_path: Path) -> None:
    payload = make_fomm(SMALL)
    payload["kp_detector"]["predictor.encoder.down_blocks.9.conv.weight"] = torch.zeros(1)
    files = write(tmp_path, payload, SMALL)
    with pytest.raises(CheckpointError, match=r"knows nothing of: .*down_blocks\.9\.conv\.weight"):
        files.run()
    assert not files.out.exists()


def test_another_shape_is_named(tmp_path: Path) -> None:
    files = write(tmp_path, make_fomm(SMALL), changed(("common_params.num_kp", 4)))
    with pytest.raises(CheckpointError, match=r"kp_detector/kp\.weight is 3x7x7x7, not 4x7x7x7"):
        files.run()


def test_many_keys_are_cut_short(tmp_path: Path) -> None:
    payload = make_fomm(SMALL)
    payload["generator"] = {}
    with pytest.raises(CheckpointError, match=r"and \d+ more$"):
        write(tmp_path, payload, SMALL).run()


@pytest.mark.parametrize(
    "payload",
    [
        {"generator": {}},
        {"kp_detector": {}, "generator": [1]},
        [1, 2],
        {"generator": {"first.conv.bias": 3}, "kp_detector": {}},
    ],
    ids=["one network", "a list for a network", "a list", "a number for a tensor"],
)
def test_other_files_are_refused(tmp_path: Path, payload: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        write(tmp_path, payload, SMALL).run()
    assert caught.value.hint and caught.value.exit_code == 3


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_malicious_pickle_does_not_run(tmp_path: Path, zipped: bool) -> None:
    files = write(tmp_path, {}, SMALL)
    payload = {**make_fomm(SMALL), "epoch": Evil(tmp_path / "ran")}
    torch.save(payload, files.pth, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="refused, because it holds more than weights"):
        files.run()
    assert not (tmp_path / "ran").exists() and not files.out.exists()


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    files = write(tmp_path, make_fomm(SMALL), SMALL)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        import_fomm(tmp_path / "none.pth.tar", files.yaml, files.out)
    files.pth.write_bytes(files.pth.read_bytes()[:20_000])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        files.run()
    with pytest.raises(ConfigError, match="cannot read"):
        import_fomm(files.pth, tmp_path / "none.yaml", files.out)


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    files = write(tmp_path, make_fomm(SMALL), SMALL)
    with pytest.raises(OutputError):
        import_fomm(files.pth, files.yaml, files.yaml / "below-a-file.pt")
    before = files.pth.read_bytes()
    for taken in (files.pth, files.yaml):
        with pytest.raises(OutputError, match="what is read"):
            import_fomm(files.pth, files.yaml, taken)
    assert files.pth.read_bytes() == before


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path, make_fomm(SMALL), SMALL)
    words = ["import-fomm", str(files.pth), "--config", str(files.yaml), "-o", str(files.out)]
    assert main(words) == 0 and str(files.out) in capsys.readouterr().out
    assert load_checkpoint(files.out).step == 0
    torch.save(Evil(tmp_path / "ran"), files.pth)
    assert main(words) == 3 and not (tmp_path / "ran").exists()
    said = capsys.readouterr().err
    assert "error: " in said and "hint: " in said and "Traceback" not in said
    files.yaml.write_text("model_params: 3")
    assert main(words) == 2


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("common_params.estimate_jacobian", False, "estimate_jacobian = false is not supported"),
        ("common_params.estimate_jacobian", ..., "estimate_jacobian = false is not supported"),
        ("common_params.num_channels", 2, "num_channels = 2 is not supported"),
        ("common_params.num_kp", 0, "num_kp = 0 is not supported"),
        ("common_params.num_kp", "ten", "num_kp: expected an integer"),
        ("common_params", ..., "missing key 'common_params'"),
        ("kp_detector_params.pad", 3, "pad = 3 is not supported"),
        ("kp_detector_params.scale_factor", 0.5, "scale_factor = 0.5 is not supported"),
        ("kp_detector_params.scale_factor", ..., "scale_factor = 1.0 is not supported"),
        ("kp_detector_params.single_jacobian_map", True, "single_jacobian_map = true"),
        ("kp_detector_params.num_blocks", 9, "num_blocks = 9 is not supported"),
        ("kp_detector_params.temperature", ..., "missing key 'temperature'"),
        ("kp_detector_params.temperature", 0, "temperature = 0.0 is not supported"),
        ("kp_detector_params.temprature", 0.1, "unknown key 'temprature'"),
        ("generator_params.estimate_occlusion_map", False, "estimate_occlusion_map = false"),
        ("generator_params.dense_motion_params", ..., "missing key 'dense_motion_params'"),
        ("generator_params.dense_motion_params.scale_factor", 1, "scale_factor = 1.0"),
        ("generator_params.dense_motion_params.kp_variance", 0, "kp_variance = 0.0"),
        ("generator_params.num_bottleneck_blocks", 10**9, "num_bottleneck_blocks = 1000000000"),
    ],
)
def test_yaml_that_we_cannot_serve(tmp_path: Path, path: str, value: Any, message: str) -> None:
    file = tmp_path / "fomm.yaml"
    file.write_text(yaml.safe_dump(changed((path, value))))
    with pytest.raises(ConfigError, match=message) as caught:
        read_fomm_config(file)
    assert str(file) in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "- a\n- list",
        "model_params: 3",
        "a: [1",
        "a: !!python/name:os.system",
        "\x00",
    ],
)
def test_yaml_that_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fomm.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        read_fomm_config(file)
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError):
        read_fomm_config(file)
