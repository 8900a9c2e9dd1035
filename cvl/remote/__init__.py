"""What runs on the far side, and the few functions that speak to it."""
