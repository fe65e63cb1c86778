"""Motion by matching: any anatomy's displacement between two driving frames, carried to a still."""
