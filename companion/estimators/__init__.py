"""Detectors for a reader's own data, after scikit-learn's contract: fit, score, predict, save, load."""
