"""Motion by matching: the displacement between two driving frames moves a still picture."""
