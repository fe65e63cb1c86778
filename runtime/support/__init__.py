"""What every part of the runtime stands on: errors, files, strict parsing, progress, time."""
