"""The anatomies that there are."""

from __future__ import annotations

from .anatomy import Anatomy
from .heart import Heart
from .heart_shape import HeartParameters
from .heart_subjects import draw as draw_heart
from .heart_subjects import unfit as unfit_heart
from .pelvic import Pelvic
from .pelvic_shape import PelvicParameters
from .pelvic_subjects import draw as draw_pelvic
from .pelvic_subjects import unfit as unfit_pelvic

ANATOMIES = {
    anatomy.name: anatomy
    for anatomy in (
        Anatomy("pelvic", PelvicParameters, draw_pelvic, Pelvic, unfit_pelvic),
        Anatomy("heart", HeartParameters, draw_heart, Heart, unfit_heart),
    )
}
