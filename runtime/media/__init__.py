"""Pictures and clips: read, fit to the model, marked, written."""
