"""From scores to verdicts: thresholds, metrics, alarms, and simple detectors.

Everywhere in this package a higher score is more unusual, and a score is flagged if it is *above* the
threshold (``score > threshold``), never if it equals it.
"""
