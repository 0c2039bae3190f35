"""The browser that looks at the built pages and prints them."""

from __future__ import annotations

import os
import shutil
from typing import Any

READY = """() => {
    dispatchEvent(new Event("scroll")); // what waits for the reader is fetched
    for (const image of document.images) image.loading = "eager";
    const whole = [...document.images].every(image => image.complete);
    const drawn = [...document.querySelectorAll("pre.mermaid")].every(d => d.querySelector("svg"));
    const formulas = document.querySelectorAll(".math").length;
    return whole && drawn && document.querySelectorAll("mjx-container").length >= formulas;
}"""
"""Asks a page whether its images, diagrams and formulas are all there."""


def launch_options() -> dict[str, Any]:
    """How Chromium is started.

    Raises:
        FileNotFoundError: if there is none.
    """
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, (shutil.which(name) for name in names if name)), None)
    if found is None:
        raise FileNotFoundError(
            "no Chromium found: install it (apt install chromium), or set CHROMIUM=/path/to/it"
        )
    flags = ["--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--disable-component-update"]
    # its sandbox does not work for root
    return {"executable_path": found, "args": flags, "chromium_sandbox": os.geteuid() != 0}
