"""Chapters in JupyterLab, as source and as the notebook for download: `make check`, after `make book`."""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import jupytext
import nbformat
import pytest
import requests
from playwright.sync_api import sync_playwright

from tests.site.browser import HTML, ROOT, launch_options

CHAPTERS = ("bottleneck", "waveforms")
PATIENCE = 60_000  # milliseconds
SETTINGS = {
    "docmanager-extension/plugin": {"defaultViewers": {"markdown": "Jupytext Notebook"}},
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight are in the page, too
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
STDERR = "application/vnd.jupyter.stderr"
SHOWN = """() => {
    const cells = [...document.querySelectorAll(".jp-NotebookPanel .jp-Notebook .jp-Cell")];
    const seen = cells.filter(e => e.checkVisibility());
    const prose = seen.filter(e => e.classList.contains("jp-MarkdownCell")).map(e => e.innerText);
    return {
        title: cells.map(e => e.querySelector("h1")).find(e => e).innerText,
        code: cells.filter(e => e.classList.contains("jp-CodeCell")).length,
        prose: prose.join("\\n"),
        folded: cells.filter(e => e.querySelector(".jp-InputPlaceholder")).length,
        solutions: seen.filter(e => e.matches(".jp-MarkdownHeadingCollapsed")).length,
        outputs: [...document.querySelectorAll(".jp-OutputArea-output")].map(e => e.dataset.mimeType),
    };
}"""
RUN = """async () => {
    const panel = jupyterapp.shell.currentWidget;
    await panel.sessionContext.ready;
    panel.content.activeCellIndex = panel.content.widgets.findIndex(e => e.model.type == "code");
    await jupyterapp.commands.execute("notebook:run-cell");
    return panel.content.activeCell.model.toJSON();
}"""

pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(not find_spec("jupyterlab"), reason="JupyterLab is missing: `make check` installs it"),
]


def source(chapter, kind):
    """A chapter as readers open it: the file of the repository, or the one that the site offers."""
    if kind == "md":
        return jupytext.read(ROOT / f"book/{chapter}.md")
    return nbformat.read(HTML / f"_sources/book/{chapter}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a chapter in a JupyterLab, with a place for its name."""
    folder = tmp_path_factory.mktemp("lab")
    work = folder / "work"
    work.mkdir()
    for name in CHAPTERS:
        (work / f"{name}.md").write_bytes((ROOT / f"book/{name}.md").read_bytes())
        (work / f"{name}.ipynb").write_bytes((HTML / f"_sources/book/{name}.ipynb").read_bytes())
    for name, settings in SETTINGS.items():
        path = folder / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    own = {name: str(folder / name.lower()) for name in names}
    token = secrets.token_hex()
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTER_TOKEN": token}
    options = [
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--allow-root",
    ]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--LabApp.expose_app_in_browser=True",
        *options,
    ]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=work, env=os.environ | own, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(120):
                try:
                    if requests.get(f"{url}/api", timeout=5).ok:
                        break
                except requests.ConnectionError:
                    time.sleep(0.5)
            yield f"{url}/lab/tree/{{}}?reset&token={token}"
        finally:
            server.terminate()  # and with it its kernels
            server.wait(30)


@pytest.fixture(scope="module")
def window():
    """A window of the browser."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(**launch_options()).new_page(viewport={"width": 1280, "height": 900})


@pytest.mark.parametrize("kind", ["md", "ipynb"])
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_is_a_notebook_in_jupyterlab(lab, window, chapter, kind):
    cells = source(chapter, kind).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    window.goto(lab.format(f"{chapter}.{kind}"))
    window.wait_for_selector(".jp-NotebookPanel h1", timeout=PATIENCE)
    shown = window.evaluate(SHOWN)
    (title,) = re.findall(
        "^# (.+)$", "\n".join(cell.source for cell in cells if cell.cell_type == "markdown"), re.M
    )
    assert shown["title"].strip("¶ ") == title
    assert shown["code"] == len(code)
    assert STDERR not in shown["outputs"]
    if kind == "ipynb":
        assert "text/html" in shown["outputs"] or "image/png" in shown["outputs"], shown["outputs"]
        assert re.findall(r"\{(?:glue|term|doc|cite|numref|ref|py)\b.{0,40}", shown["prose"]) == []
        assert shown["folded"] == sum(
            cell.metadata.get("jupyter", {}).get("source_hidden", False) for cell in code
        )
        assert shown["folded"] > 0
        assert shown["solutions"] == sum("jp-MarkdownHeadingCollapsed" in cell.metadata for cell in cells) > 0
    ran = window.evaluate(RUN)
    assert ran["source"] == code[0].source
    assert ran["execution_count"] == 1
    assert not [out for out in ran["outputs"] if out["output_type"] == "error" or out.get("name") == "stderr"]
