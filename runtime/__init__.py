"""Everything that runs a bundle: no torch, no onnx, and only numpy at import time."""

from .animator import Animator
from .bundle.bundle import Bundle
from .smoothing import Smoothing
from .support.errors import SonomimeError

__all__ = ["Animator", "Bundle", "Smoothing", "SonomimeError"]
