"""A reader study: people rate clips without knowing their arms; a report says what came out."""
