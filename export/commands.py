"""The verbs `export`, `quantize`, `build`, `engine`, `triton` and `import-fomm`; they import torch
only when run, if at all."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..runtime.support.verbs import Verbs, add_verb

EXPORT = """make a bundle of ONNX stages from a checkpoint

Export a checkpoint's model as a bundle. The bundle is compared with the model, stage by stage and
as a whole, on real frames (fp32: 1e-4 and 1 grey level, fp16: 45 dB). If they differ, the exit code
is 5 and no bundle is left.

example:
  sonomime export runs/first/checkpoint.pt -o my-bundle"""
QUANTIZE = """make an int8 bundle for CPUs

Make the convolutions of a float bundle int8, calibrated on clips. Kept is only what is exact enough
on other clips (at most 1 dB of PSNR and 3 % of the motion lost) and at least 1.25 times as fast as
the best float engine of this machine. CPUs with VNNI gain most.

example:
  sonomime quantize --data my-clips/ -o int8-bundle
  sonomime animate still.png driving.mp4 -o out.mp4 --bundle int8-bundle"""
BUILD = """build TensorRT engines of a bundle's stages

Build engines of a bundle's stages, for the backends tensorrt and rtx. The engines of a bundle are
one file in $XDG_CACHE_HOME/sonomime (default ~/.cache/sonomime), where backends find it. It is used
again while the stages, the version of TensorRT, the plugin and the GPU stay the same. -o also
writes a file for another machine; there, run: sonomime engine trust FILE.

example:
  sonomime build bundles/first --flavour rtx -o first.engine"""
ENGINE = """trust an engine file from another machine

Engines are machine code. An engine that this user did not build is refused until it is trusted
here.

example: build on one machine, use on another
  sonomime build bundles/first --flavour rtx -o first.engine
  sonomime engine trust first.engine"""
TRUST = """let an engine file be used

Check the file, record its digest in this user's cache and keep a copy where backends find it. Trust
only files whose origin you know.

example:
  sonomime engine trust first.engine"""
TRITON = """write a model repository for NVIDIA's Triton Inference Server

Write a folder that a Triton server can load: the model `sonomime`, which keeps one source picture
for each sequence of requests and makes a frame of each driving frame. It needs no torch. The
server's Python needs sonomime. docs/triton.md says how to start and how to ask it.

example:
  sonomime triton my-bundle -o model_repository
  tritonserver --model-repository=$PWD/model_repository"""
IMPORT_FOMM = """make a checkpoint from a public FOMM checkpoint

Convert a checkpoint of the First Order Motion Model's authors. It is read without running code from
it. Its licence (CC BY-NC) still holds. The public checkpoints were trained before torch 1.3, which
then sampled at other places than later; a file does not say with which it was trained.

example:
  sonomime import-fomm vox-cpk.pth.tar --config vox-256.yaml -o vox.pt"""


def add_export(sub: Verbs) -> None:
    """Register ``sonomime export``."""
    add = add_verb(sub, "export", EXPORT, export_command).add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint.pt of a run")
    add("-o", "--output", type=Path, required=True, metavar="BUNDLE", help="folder to make")
    precision = "fp32 (default), or fp16: half precision"
    add("--precision", choices=("fp32", "fp16"), default="fp32", help=precision)
    add("--name", default="", help="the bundle's name (default: the preset's)")
    frames = "frames for the comparison and the golden sample (default: sonomime's own)"
    add("--frames", type=Path, metavar="VIDEO_OR_FOLDER", help=frames)
    licence = "licence of the weights (default: Apache-2.0 if the data's licences allow it)"
    add("--licence", default="", help=licence)
    data = "data that the model was trained on, if the checkpoint does not list it"
    add("--data", action="append", default=[], metavar="NAME=LICENCE", help=data)
    add("--credits", type=Path, metavar="FILE", help="text of the bundle's CREDITS.md")
    add("--figures", type=Path, metavar="FILE", help="Markdown with figures for the model card")
    add("--json", action="store_true", help="print the agreement with the model as JSON")


def export_command(args: argparse.Namespace) -> int:
    """Run ``sonomime export``."""
    from ..runtime.support.plain_file import sha256_file
    from ..training.checkpoint import load_checkpoint
    from .bundle import export_bundle
    from .card import Description, stated_licence
    from .verify import read_frames

    checkpoint = load_checkpoint(args.checkpoint)
    config = checkpoint.config.model
    frames = read_frames(args.frames, config.image_size, config.channels)
    description = Description(
        name=args.name,
        licence=args.licence,
        credits=_text(args.credits),
        figures=_text(args.figures),
        data=tuple(map(stated_licence, args.data)),
    )
    parity = export_bundle(
        checkpoint, sha256_file(args.checkpoint), args.output, frames, args.precision, description
    )
    if args.json:
        print(json.dumps({"bundle": str(args.output), **vars(parity)}))
    else:
        errors = {name: e for name, e in parity.stages.items() if not name.endswith("frame")}
        worst = max(errors, key=lambda name: errors[name])
        print(
            f"{args.output}: frames within {parity.frame_levels} grey levels "
            f"({parity.psnr_db:.1f} dB), stages within {errors[worst]:.1e} ({worst})"
        )
    return 0


def add_quantize(sub: Verbs) -> None:
    """Register ``sonomime quantize``."""
    add = add_verb(sub, "quantize", QUANTIZE, quantize_command).add_argument
    bundle = "folder of the float bundle (default: the one included)"
    add("bundle", type=Path, nargs="?", metavar="BUNDLE", help=bundle)
    data = "dataset folders, or folders of clips: two thirds to calibrate on, the rest to check"
    add("--data", action="append", type=Path, required=True, metavar="FOLDER", help=data)
    add("-o", "--output", type=Path, required=True, metavar="BUNDLE", help="folder to make")
    elsewhere = "keep the bundle also if it is not faster on this machine"
    add("--for-another-machine", action="store_true", help=elsewhere)
    add("--threads", type=int, metavar="N", help="CPU threads (default: physical cores)")
    add("--json", action="store_true", help="print what came of it as JSON")


def quantize_command(args: argparse.Namespace) -> int:
    """Run ``sonomime quantize``."""
    from ..runtime.backends import resolve_threads
    from ..runtime.bundle.bundle import Bundle
    from .int8_check import read_clips
    from .quantize import quantize_bundle

    bundle = Bundle.open(args.bundle)
    found = quantize_bundle(
        bundle, read_clips(args.data, bundle), args.output, resolve_threads(args.threads),
        args.for_another_machine,
    )  # fmt: skip
    assert found.checked is not None
    if args.json:
        checked = found.checked._asdict()
        print(json.dumps({"bundle": str(args.output), **vars(found), "checked": checked}))
        return 0
    for name, row in found.stages.items():
        print(f"{name}: {row['int8']} of {row['convolutions']} convolutions in int8")
    print(found.checked.said)
    print(", ".join(f"{name} {ms:.1f} ms" for name, ms in found.milliseconds.items()))
    print(f"{args.output}: {found.gain:.2f} times as fast as the best float engine here")
    return 0


def add_build(sub: Verbs) -> None:
    """Register ``sonomime build``."""
    add = add_verb(sub, "build", BUILD, build_command).add_argument
    bundle = "folder of the bundle (default: the one included)"
    add("bundle", type=Path, nargs="?", metavar="BUNDLE", help=bundle)
    flavour = (
        "tensorrt: TensorRT, for this machine's GPU; rtx: TensorRT-RTX, which needs no GPU to "
        "build (default: tensorrt if it and a GPU are found, else rtx)"
    )
    add("--flavour", choices=("tensorrt", "rtx"), help=flavour)
    add("--device", type=int, metavar="N", help="number of the GPU for tensorrt (default: 0)")
    add("-o", "--output", type=Path, metavar="FILE", help="also write the engine file there")
    add("--json", action="store_true", help="print the report as JSON")


def build_command(args: argparse.Namespace) -> int:
    """Run ``sonomime build``."""
    from ..runtime.bundle.bundle import Bundle
    from .engine import build_engines, choose_flavour

    flavour, why = (args.flavour, "") if args.flavour else choose_flavour(args.device)
    if why:
        print(f"building {flavour}: {why}", file=sys.stderr)
    done = build_engines(Bundle.open(args.bundle), flavour, args.output, args.device)
    if flavour == "tensorrt" and done.plugin is None:
        print("no plugin found: using the operators' ONNX bodies", file=sys.stderr)
    if args.json:
        print(json.dumps(done.plain()))
        return 0
    for stage in done.manifest.stages:
        kinds = ", ".join(f"{kind.layers} {kind.dtype}" for kind in stage.precisions)
        memory = stage.device_memory_bytes
        print(
            f"{stage.name:<10} {stage.size / 1e6:7.2f} MB  {stage.seconds:6.1f} s to build  "
            + ("" if memory is None else f"{memory / 1e6:.1f} MB of device memory  ")
            + f"{stage.layers} layers: {kinds}"
            + (f"  plugin: {stage.plugin_layers}" if stage.plugin_layers else "")
        )
    built = "as built before" if done.cached else "built"
    print(f"{done.path}  {done.manifest.size / 1e6:.1f} MB  {built}")
    print(f"for {', '.join(done.manifest.targets)}, {flavour} {done.manifest.version}")
    return 0


def add_engine(sub: Verbs) -> None:
    """Register ``sonomime engine``."""
    parser = add_verb(sub, "engine", ENGINE, None)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="engine_verb", required=True)
    add = add_verb(verbs, "trust", TRUST, trust_command).add_argument
    file = "engine file that `sonomime build -o FILE` wrote"
    add("file", type=Path, metavar="FILE", help=file)


def trust_command(args: argparse.Namespace) -> int:
    """Run ``sonomime engine trust``."""
    from ..runtime.engines.engine_store import trust
    from ..runtime.support.printable import printable

    done = trust(args.file)
    made = done.manifest
    print(f"{args.file}: trusted, SHA-256 {done.sha256}")
    said = f"bundle {made.bundle} ({made.bundle_digest[:12]}), {made.flavour} {made.version}, "
    print(printable(said + f"for {', '.join(made.targets)}"))
    return 0


def add_triton(sub: Verbs) -> None:
    """Register ``sonomime triton``."""
    add = add_verb(sub, "triton", TRITON, triton_command).add_argument
    bundle = "folder of the bundle (default: the one included)"
    add("bundle", type=Path, nargs="?", metavar="BUNDLE", help=bundle)
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder to make")
    where = "where the server runs the model (default: auto, the fastest that it finds)"
    add("--backend", default="auto", metavar="NAME", help=where)
    add("--threads", type=int, metavar="N", help="CPU threads (default: physical cores)")
    sequences = "most sequences at the same time (default: 8); each costs memory"
    add("--sequences", type=int, default=8, metavar="N", help=sequences)
    idle = "the server gives up a sequence that is silent for so long (default: 60)"
    add("--idle", type=float, default=60.0, metavar="SECONDS", help=idle)
    size = "of frames: as large as the source (default), or of the model"
    add("--size", choices=("source", "model"), default="source", help=size)
    stages = "also write each stage as a model, and an ensemble whose state the caller keeps"
    add("--stages", action="store_true", help=stages)
    mark = "leave the synthetic mark out of the pictures"
    add("--no-mark", dest="mark", action="store_false", help=mark)


def triton_command(args: argparse.Namespace) -> int:
    """Run ``sonomime triton``."""
    from ..runtime.bundle.bundle import Bundle
    from .triton import Settings, write_repository

    bundle = Bundle.open(args.bundle)
    settings = Settings(
        backend=args.backend, threads=args.threads, sequences=args.sequences, idle=args.idle,
        size=args.size, mark=args.mark, stages=args.stages,
    )  # fmt: skip
    model = write_repository(bundle, args.output, settings)
    if not args.mark:
        print("the synthetic mark is left out of the pictures, as asked", file=sys.stderr)
    if args.stages:
        what = "sonomime_frame gives frames without the synthetic mark: whoever shows them draws it"
        print(what, file=sys.stderr)
    print(f"{model}: serves {bundle.manifest.name}, {args.sequences} sequences at the same time")
    print(f"start it: tritonserver --model-repository={args.output.resolve()}")
    return 0


def add_import_fomm(sub: Verbs) -> None:
    """Register ``sonomime import-fomm``."""
    add = add_verb(sub, "import-fomm", IMPORT_FOMM, import_fomm_command).add_argument
    config = "the YAML file that goes with it"
    add("pth", type=Path, metavar="FILE.pth.tar", help="the public checkpoint")
    add("--config", type=Path, required=True, metavar="FOMM.yaml", help=config)
    add("-o", "--output", type=Path, required=True, metavar="CHECKPOINT", help="file to write")
    sampling = "torch that it was trained with (default: before 1.3, as the public ones)"
    choices = ("trained-before-torch-1.3", "later")
    add("--sampling", choices=choices, default=choices[0], help=sampling)


def import_fomm_command(args: argparse.Namespace) -> int:
    """Run ``sonomime import-fomm``."""
    from .fomm import import_fomm

    geometry = import_fomm(args.pth, args.config, args.output, args.sampling)
    trained = "with torch 1.3 or later" if args.sampling == "later" else "before torch 1.3"
    print(f"{args.output}: sampled as weights trained {trained} were (geometry {geometry})")
    return 0


def _text(path: Path | None) -> str:
    from ..runtime.support.errors import InputError

    try:
        return path.read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", "give a text file in UTF-8") from error
