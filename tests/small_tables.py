"""Small generated tables in the place of Adult and California Housing."""

from __future__ import annotations

from companion.data.tables import synthetic_table

SMALL_TABLES = {
    "adult": lambda: synthetic_table("adult", 400, num_categorical=2, num_classes=2),
    "california": lambda: synthetic_table("california", 400, num_categorical=0, num_classes=None),
}
