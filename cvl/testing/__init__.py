"""Conformance suite, fakes and real stand-ins, usable by third-party runners."""
