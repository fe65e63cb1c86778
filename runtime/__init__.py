"""Everything that runs a bundle: no torch, no onnx, and only numpy at import time."""
