"""Models, losses, clips and the training loop: what makes a checkpoint. Needs torch."""
