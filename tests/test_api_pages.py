"""The API pages: every module that readers may call is on one of them, once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = "\n".join(path.read_text("utf8") for path in sorted((ROOT / "book/reference").glob("api-*.md")))
INNER = {"actions", "fields", "fill", "fill_network", "parquet", "plan", "world"}
"""Modules ``companion.data.ocsf_...`` that only other modules call."""


def test_every_module_is_on_one_page():
    files = [path for path in (ROOT / "companion").rglob("*.py") if path.stem != "__init__"]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    left_out = {name for name in modules if name.startswith("companion.cli")}
    left_out |= {f"companion.data.ocsf_{name}" for name in INNER}
    assert left_out < modules
    shown = Counter(re.findall(r"automodule:: (\S+)", PAGES))
    assert modules - left_out == shown.keys()
    assert set(shown.values()) == {1}


def test_every_module_stands_under_its_own_heading():
    assert re.findall(r"^## `(\S+)`$", PAGES, re.MULTILINE) == re.findall(r"automodule:: (\S+)", PAGES)
