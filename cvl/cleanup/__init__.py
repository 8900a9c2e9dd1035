"""What must not outlive a run: leases on it, seen gone at its end; the guardian that sees to it."""
