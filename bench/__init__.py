"""Measurements of cvl beside what one would use instead; `python -m bench` writes the page."""
