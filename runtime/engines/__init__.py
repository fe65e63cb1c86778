"""TensorRT engines of a bundle: file, cache and trust, packages."""
