"""Neural networks, as modules and nothing else: no data, no training."""
