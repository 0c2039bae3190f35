"""The experiments behind the chapters: one module a subject."""

from companion.experiments.base import NAMES, get_experiment

__all__ = ["NAMES", "get_experiment"]
