"""Machines rented for a run: which one, at what price, until when, with which keys."""
