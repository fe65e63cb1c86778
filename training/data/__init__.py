"""From dataset folders to batches of training pairs."""
