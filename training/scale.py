"""A preset at a small scale: another image size, and all widths times a factor.

At half the size and a quarter of the widths FOMM's arithmetic is 1/64. The networks keep their
depth, so that a small model is the same design.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ..runtime.support.errors import ConfigError
from .config import Config, has, settings
from .config_file import config_from_dict, load_config, read_toml

LEAST = 4  # channels
SIZES = range(32, 4097, 32)  # that may be proposed

_WIDTHS = ("width", "max_features", "fine", "coarse")
_GRIDS = ("grid", "stiff", "shading")  # cells a side


def load_scaled(
    preset_or_toml: str, overrides: Sequence[str], size: int | None, width: float | None
) -> Config:
    """`load_config` at another scale; the overrides come last.

    Raises:
        ConfigError: see `load_config`; no such scale.
    """
    if width is not None and not 0 < width <= 4:
        raise ConfigError(f"--width {width:g} is not above 0 and at most 4", "e.g. --width 0.25")
    path, table = read_toml(preset_or_toml)
    whole = config_from_dict(table, where=str(path))

    def load(side: int | None) -> Config:
        return load_config(preset_or_toml, [*scaled(whole, side, width), *overrides])

    def fits(side: int) -> bool:
        with suppress(ConfigError):
            load(side)
            return True
        return False

    try:
        return load(size)
    except ConfigError as error:
        if size is None:
            raise
        near = next(filter(fits, sorted(SIZES, key=lambda side: abs(side - size))), None)
        if near is None:  # the size is not to blame
            raise
        fault = f"{preset_or_toml} does not work at --size {size}: {error.message}"
        raise ConfigError(fault, f"e.g. --size {near}") from error


def scaled(config: Config, size: int | None, width: float | None) -> list[str]:
    """Overrides that give a configuration this image size, in pixels, and all its widths times
    ``width``, in whole multiples of LEAST. Lite's grids keep their cells' size in pixels."""
    model, found = config.model, []
    if size is not None:
        found.append(f"model.image_size={size}")
    for name, value, facts in settings(model, "model."):
        if not has(model.family, facts):
            continue
        last = name.rsplit(".", 1)[-1]
        if width is not None and last in _WIDTHS:
            found.append(f"{name}={max(LEAST, LEAST * round(value * width / LEAST))}")
        if size is not None and last in _GRIDS and value > 0:
            found.append(f"{name}={max(1, value * size // model.image_size)}")
    return found
