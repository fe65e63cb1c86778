"""Networks that judge pictures and clips; their weights are files that the user gives."""
