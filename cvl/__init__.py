"""Run an ML example on somebody else's machine as if it were this one."""

__version__ = "0.1.0"
