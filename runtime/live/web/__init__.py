"""The local page: a small server, and who may use it."""
