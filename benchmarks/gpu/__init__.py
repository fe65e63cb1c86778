"""What checks and times kernels, models and backends on a GPU, for `gpu_check` and `bench`."""
