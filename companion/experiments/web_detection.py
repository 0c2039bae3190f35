"""Chapter 7: the same detectors on the real events of a web service."""

from __future__ import annotations

from companion.experiments.event_detection import WEB_DETECTION

__all__ = ["WEB_DETECTION"]
