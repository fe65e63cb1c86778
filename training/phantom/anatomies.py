"""The anatomies that there are."""

from __future__ import annotations

from .anatomy import Anatomy
from .pelvic import Pelvic, PelvicParameters
from .pelvic_subjects import draw as draw_pelvic

ANATOMIES = {
    anatomy.name: anatomy for anatomy in (Anatomy("pelvic", PelvicParameters, draw_pelvic, Pelvic),)
}
