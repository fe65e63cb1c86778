"""docs/results/phantom.*: the phantom's pictures, and its speckle beside that of real clips."""
