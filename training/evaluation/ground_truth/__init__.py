"""What a phantom knows: exact fields, true predictions, and the scores they allow."""
