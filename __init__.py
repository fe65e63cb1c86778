"""Animate a still ultrasound image with the motion of a driving ultrasound video.

`sonomime.training` makes a checkpoint, `sonomime.export` turns it into a bundle of ONNX stages,
`sonomime.runtime` runs those stages frame by frame, and `sonomime.benchmarks` times them. Importing
this module imports none of them.
"""

import os

# ONNX Runtime reports over the network, unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
