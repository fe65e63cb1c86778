"""Animate a still ultrasound image with the motion of a driving ultrasound video.

The package has three rooms: `sonomime.training` makes a checkpoint, `sonomime.export` turns it
into a bundle of ONNX stages, `sonomime.runtime` chains those stages frame by frame. Importing this
module imports none of them.
"""

__version__ = "0.1.0"
