"""The one way to whatever speaks HTTP: proxies, authorities, limits, and what its errors mean."""
