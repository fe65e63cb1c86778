"""The parts of `gpu_check`, and the kernels as torch calls them."""
