"""What the phantom is worth: its physics measured, its speckle beside that of real clips."""
