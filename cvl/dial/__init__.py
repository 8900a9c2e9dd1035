"""The one way to dial for all that speaks HTTP: proxies, authorities and limits are the same."""
