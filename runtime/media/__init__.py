"""Pictures as arrays: fitted to the model, marked, shown; where they show ultrasound, and text."""
