"""BLAKE2b without `hashlib`, which loads OpenSSL first: 3 ms of each command for nothing.

`hashlib.blake2b` is this very class (RFC 7693).
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # an interpreter without it may still have OpenSSL's
    from hashlib import blake2b

__all__ = ["blake2b"]
