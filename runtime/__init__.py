"""Run a bundle. Needs neither torch nor onnx; importing this imports only numpy."""

from .animator import Animator
from .bundle.bundle import Bundle
from .options import Smoothing
from .support.errors import SonomimeError

__all__ = ["Animator", "Bundle", "Smoothing", "SonomimeError"]
