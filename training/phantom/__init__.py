"""The phantom: ultrasound whose motion, landmarks and true prediction are known."""
