"""The life of one run, the same for every provider: plan, note, launch, follow, fetch, release."""
