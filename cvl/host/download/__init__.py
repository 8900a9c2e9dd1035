"""What comes back from a machine: everything new or changed, landed in one folder only."""
