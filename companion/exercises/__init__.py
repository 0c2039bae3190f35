"""Exercises that can be checked: ``check("name", answer)`` says whether it is right, and if not, why."""

from __future__ import annotations

from companion.exercises.base import Finding, Report
from companion.exercises.checker import EXERCISES, check

__all__ = ["EXERCISES", "Finding", "Report", "check"]
