"""Lambda: a rented machine for each run."""
