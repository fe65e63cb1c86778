"""A preset, or a file of one's own, becomes a `Config`: TOML, read strictly, then overrides.

A preset is a TOML file in ``presets/``; ``--set section.key=value`` overrides a value.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runtime.bundle.checks import most_numbers
from ..runtime.support.dataclass_parser import StrictError, parse
from ..runtime.support.errors import ConfigError
from .config import Config, has, settings

PRESETS = Path(__file__).parent / "presets"
_FIX = "fix it in the TOML file or with --set"


def preset_names() -> list[str]:
    """Names of the presets that come with sonomime."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_toml(preset_or_toml: str) -> tuple[Path, dict[str, Any]]:
    """The file of a preset by name, or of one's own by path, and its tables.

    Raises:
        ConfigError: unknown preset, unreadable file.
    """
    path = Path(preset_or_toml)
    if preset_or_toml in preset_names():
        path = PRESETS / f"{preset_or_toml}.toml"
    elif not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        hint = f"presets: {', '.join(preset_names())}"
        raise ConfigError(f"no preset or TOML file named {preset_or_toml!r}", hint)
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{path}: not a readable TOML file: {error}", "fix the file") from error


def load_config(preset_or_toml: str, overrides: Sequence[str] = ()) -> Config:
    """Read a preset by name or a TOML file by path, then apply ``section.key=value`` overrides.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key, wrong type or value, a setting
            of another family.
    """
    path, table = read_toml(preset_or_toml)
    config = config_from_dict(table, where=str(path))
    for override in overrides:
        _apply(table, override)
        config = config_from_dict(table, where=f"--set {override}")
    by_epochs = ("train.epochs=", "train.num_repeats=")
    if config.train.max_steps > 0 and any(each.startswith(by_epochs) for each in overrides):
        fault = f"train.max_steps is {config.train.max_steps}, so epochs would count for nothing"
        raise ConfigError(fault, "add --set train.max_steps=0 to go by epochs")
    family = config.model.family
    for name, _, facts in settings(config):
        given: Any = table
        for key in name.split("."):
            given = given.get(key, {})
        if given != {} and not has(family, facts):
            owners = " or ".join(facts["families"])
            raise ConfigError(
                f"{name} is a setting of the family {owners}; this is {family}",
                "remove it, since it would do nothing; model.family is the model's family",
            )
    if not config.preset:
        config = dataclasses.replace(config, preset=path.stem)
    check(config)
    return config


def _apply(table: dict[str, Any], override: str) -> None:
    """Put the value of ``section.key=value`` into nested tables, in place."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not KEY=VALUE", "e.g. --set train.max_steps=9")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text  # a bare word is a string
    *sections, last = key.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{key}: {section!r} is not a section", "see docs/training.md")
    table[last] = value


def config_from_dict(table: Mapping[str, Any], where: str = "config") -> Config:
    """Build a Config from nested tables, refusing unknown keys and wrong types (ConfigError)."""
    try:
        return parse(Config, table)
    except StrictError as error:
        raise ConfigError(f"{where}: {error}", error.hint or "fix the value") from error


def check(config: Config) -> None:
    """Refuse values out of range, and settings that do not fit together (ConfigError)."""
    model = config.model
    for name, value, facts in settings(config):
        if not has(model.family, facts) or isinstance(value, str):
            continue
        least, most = facts.get("range", (0, math.inf))
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(least <= number <= most for number in numbers):
            wanted = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:.10g}"
            raise ConfigError(f"{name} is {value}; it must be {wanted}", _FIX)
        if list(numbers) != sorted(numbers):
            raise ConfigError(f"{name} is {value}; the lower one comes first", _FIX)
    rules = {"matching": _matching_rules, "monkey-net": _monkey_net_rules}
    for holds, sentence in rules.get(model.family, _keypoint_rules)(config):
        if not holds:
            raise ConfigError(sentence, _FIX)


def _keypoint_rules(config: Config) -> list[tuple[bool, str]]:
    points, motion, loss = config.model.keypoints, config.model.motion, config.loss
    still = motion.background == "still" or config.model.geometry == "half_pixel"
    alone = points.self_supervised >= 1 or loss.equivariance_on == "all"
    network = loss.perceptual_network
    weights = network == "none" or loss.perceptual_weights != ""
    return [
        *_point_rules(config),
        (alone, "loss.equivariance_on must be all where no keypoint is self-supervised"),
        (still, "model.motion.background must be still where model.geometry is not half_pixel"),
        (weights, f"loss.perceptual_network={network} needs loss.perceptual_weights=PATH"),
    ]


def _monkey_net_rules(config: Config) -> list[tuple[bool, str]]:
    model = config.model
    return [
        *_point_rules(config),
        (model.keypoints.supervised == 0, "model.keypoints.supervised must be 0 in monkey-net"),
        (model.geometry == "half_pixel", "model.geometry must be half_pixel in monkey-net"),
        (config.loss.reconstruction > 0, "loss.reconstruction must be above 0 in monkey-net"),
    ]


def _point_rules(config: Config) -> list[tuple[bool, str]]:
    model, points, motion = config.model, config.model.keypoints, config.model.motion
    halvings = {2 + points.depth, 2 + motion.depth, model.generator.downs}
    if motion.background == "affine":
        halvings.add(2 + 4)  # its network's
    size, blocks, fits = model.image_size, model.discriminator.blocks, 2 ** max(halvings)
    side = size - 3  # of what the discriminator's last block norms
    for _ in range(blocks - 1):
        side = side // 2 - 3
    judged = config.loss.adversarial > 0 or config.loss.feature_matching > 0
    few = f"model.discriminator.blocks is {blocks}, too many for a model.image_size of {size}"
    return [
        (size % fits == 0, f"model.image_size must be a multiple of {fits}"),
        (side >= 2 or not judged, few),
        (points.count >= 1, "model.keypoints: at least one keypoint is needed"),
        (points.head_kernel * motion.head_kernel % 2 == 1, "model.*.head_kernel must be odd"),
    ]


def _matching_rules(config: Config) -> list[tuple[bool, str]]:
    model, matcher = config.model, config.model.matcher
    size, grid = model.image_size, matcher.grid
    passed, most = 3 * grid**2 + max(1, matcher.shading) ** 2, most_numbers(size)
    return [
        (size % 64 == 0, "model.image_size must be a multiple of 64"),
        (model.geometry == "half_pixel", "model.geometry must be half_pixel to match"),
        (size // 8 % grid == 0, f"model.matcher.grid must divide {size // 8}, the size / 8"),
        (grid % matcher.stiff == 0, "model.matcher.stiff must divide model.matcher.grid"),
        (grid % (matcher.shading or 1) == 0, "model.matcher.shading must divide its grid"),
        (passed <= most, f"model.matcher passes {passed} numbers a frame, {most} are allowed"),
    ]
