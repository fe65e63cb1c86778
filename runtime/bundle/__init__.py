"""THE CONTRACT: what passes from training and export to the runtime."""
