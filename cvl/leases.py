"""Acquire, release, reap: clean-up, said once for all providers."""


class Leases:
    """Every resource of one run that must not outlive it."""
