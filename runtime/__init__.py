"""Everything that runs a bundle: no torch, no onnx, and only numpy at import time."""

from .animator import Animator
from .bundle import Bundle
from .errors import SonomimeError
from .smoothing import Smoothing

__all__ = ["Animator", "Bundle", "Smoothing", "SonomimeError"]
