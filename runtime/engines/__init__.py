"""TensorRT engines of a bundle: the file, the cache and whom to trust, the packages."""
