"""Values, errors, limits and interfaces: what every other room builds on; it knows none of them."""
