"""What a phantom knows: exact fields and true predictions."""
