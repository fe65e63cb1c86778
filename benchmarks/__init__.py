"""How long a frame takes, where the time goes and what it is compared with."""
