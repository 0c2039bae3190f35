"""A page is executed again when something changes that its outputs depend on, and only then."""

import os
import re
import shutil
from pathlib import Path

import jupytext
import pytest
from book_cache import page_key
from book_reach import READ, Package
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from tests.site.test_book import CHAPTER, HEADER, Book

ROOT = Path(__file__).parents[2]
LOADER = "def {}(name):\n    return import_module(f'companion.{}.{{name}}')\n"
PACKAGE = {
    "__init__.py": "",
    "data/__init__.py": LOADER.format("fetch", "data") + "\n\ndef available():\n    return fetch('a')\n",
    "data/photos.py": "",
    "data/photos.toml": "",
    "data/logs.py": "TABLE = 'fields.toml'\n",
    "data/fields.toml": "",
    "data/odd.sql": "",  # nothing says who reads it
    "models/__init__.py": "",
    "models/nets.py": "",
    "models/blocks.py": "",
    "runs.py": "import companion\n\n\ndef load_run(name):\n    return RECORDED / name\n",
    "recorded/one-full-cpu.json": "",
    "recorded/one-full-cpu.net.safetensors": "",
    "recorded/two-full-cpu.json": "",
    "experiments/__init__.py": "from companion.experiments.base import get_experiment\n",
    "experiments/base.py": "from companion.runs import load_run\n\nTABLE = 'scales.yaml'\n\n\n"
    + LOADER.format("get_experiment", "experiments"),
    "experiments/scales.yaml": "first: {module: one}\nsecond: {module: two}\n",
    "experiments/one.py": "from companion.models.blocks import Block\n\n\ndef run():\n"
    "    from companion.data.photos import load\n",
    "experiments/two.py": "RUN = 'two-full-cpu'\n",
    "cli.py": "from companion.experiments import get_experiment\n\n\nget_experiment(name)\n",
}
BASE = "experiments/__init__ experiments/base experiments/scales.yaml runs"
PHOTOS = "data/__init__ data/photos data/photos.toml"
ONE = "models/__init__ models/blocks " + PHOTOS
RUNS = "recorded/one-full-cpu.json recorded/one-full-cpu.net.safetensors recorded/two-full-cpu.json"
CASES = {
    "import math": "",
    "from companion.data.photos import load": PHOTOS,
    "from companion.data import photos": PHOTOS,
    "from companion.data.logs import load": "data/__init__ data/logs data/fields.toml",
    "from companion.data import available\navailable()": f"{PHOTOS} data/logs data/fields.toml",
    "from companion import data\ndata.fetch('logs')": f"{PHOTOS} data/logs data/fields.toml",
    "from companion.models import blocks": "models/__init__ models/blocks",
    "from companion.experiments.base import current_scale": BASE,
    "from companion.experiments import get_experiment\nget_experiment('first').run()":
    f"{BASE} {ONE} experiments/one",
    "from companion.experiments import get_experiment\nget_experiment('second')":
    f"{BASE} experiments/two recorded/two-full-cpu.json",
    "from companion.experiments import get_experiment\nmap(get_experiment, names)":
    f"{BASE} {ONE} experiments/one experiments/two recorded/two-full-cpu.json",
    "from companion.experiments import get_experiment as e\ne('first')":
    f"{BASE} {ONE} experiments/one experiments/two recorded/two-full-cpu.json",
    "from companion.runs import load_run\nload_run('two-full-cpu')": "runs recorded/two-full-cpu.json",
    "from companion.runs import load_run\n[load_run(f'{n}-full-cpu') for n in ('one',)]":
    "runs recorded/one-full-cpu.json recorded/one-full-cpu.net.safetensors",
    "from companion.runs import load_run\nload_run(name)": f"runs {RUNS}",
    "from companion.runs import RECORDED\nRECORDED.glob('*')": f"runs {RUNS}",
    "script.write_text('''\nfrom companion.models.nets import Net\n''')": "models/__init__ models/nets",
    "%%writefile steps.py\nimport companion.models.nets": "models/__init__ models/nets",
}  # fmt: skip
ALL = ("!companion run first", "run(['companion', 'run'])", "import_module(name)", "1 +")

WATCH = """
import sys

opened = set()
sys.addaudithook(lambda event, told: event == "open" and opened.add(str(told[0])))
"""
TELL = """
import companion

opened |= {str(getattr(module, "__file__", "")) for module in list(sys.modules.values())}
print(*(name for name in opened if name.startswith(companion.__path__[0])), sep="\\n")
"""


@pytest.fixture
def package(tmp_path):
    """A small package with everything that a page can depend on."""
    for name, text in PACKAGE.items():
        path = tmp_path / "companion" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "requirements.txt").write_text("torch==1\n")
    return tmp_path


def names(files, root):
    return {path.relative_to(root / "companion").as_posix().removesuffix(".py") for path in files}


@pytest.mark.parametrize(("code", "reached"), CASES.items(), ids=range(len(CASES)))
def test_a_page_reaches_what_it_can_import_and_what_that_reads(package, code, reached):
    wanted = {"__init__", *reached.split()} if "companion" in code else set()
    assert names(Package(package).reached([code]), package) == wanted | {"data/odd.sql"}


@pytest.mark.parametrize("code", ALL)
def test_in_doubt_a_page_reaches_everything(package, code):
    assert names(Package(package).reached([code]), package) == {n.removesuffix(".py") for n in PACKAGE}


def test_the_key_changes_with_what_the_outputs_depend_on_and_nothing_else(package):
    page, cell = package / "page.md", CHAPTER.replace("companion.answer", "companion.data.photos")

    def key(around="all; live; cpu"):
        return page_key(Package(package), page, around)

    def changed(name, text):
        path = package / name
        old = path.read_text()
        path.write_text(text if text else old + "# a word\n")
        new = key()
        path.write_text(old)
        return new

    page.write_text("# No cells\n")
    assert key() == ""
    page.write_text(HEADER + cell)
    first = key()
    reached = ("companion/data/photos.py", "companion/data/photos.toml", "companion/data/__init__.py")
    new = {changed(name, "") for name in (*reached, "companion/__init__.py", "requirements.txt")}
    new |= {key("; live; cpu"), key("all; smoke; cpu"), key("all; live; cuda")}
    new |= {changed("page.md", HEADER + cell.replace("/ 7", "/ 8"))}
    assert len(new - {first}) == 9
    others = ("data/logs.py", "data/fields.toml", "recorded/one-full-cpu.json", "cli.py")
    same = {changed(f"companion/{name}", "") for name in others}
    same |= {changed("page.md", HEADER + cell + "\nMore prose.\n")}
    (package / "companion/data/new.py").write_text("")
    assert same | {key()} == {first}


@pytest.mark.parametrize("page", ["card-casting", "execution", "runs"])
def test_what_a_page_really_opens_is_within_its_reach(page, tmp_path):
    notebook = jupytext.read(ROOT / f"book/reference/{page}.md")
    reached = Package(ROOT).reached([cell.source for cell in notebook.cells if cell.cell_type == "code"])
    notebook.cells = [new_code_cell(WATCH), *notebook.cells, new_code_cell(TELL)]
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=os.environ | {"COMPANION_SCALE": "smoke", "PYTHONPATH": str(ROOT)})
    opened = {Path(name) for name in notebook.cells[-1].outputs[0].text.splitlines()}
    opened = {path for path in opened if path.suffix in (".py", *READ)}
    assert ROOT / "companion/runs.py" in opened
    assert opened <= reached


def test_no_other_module_imports_by_a_name_made_at_run_time():
    texts = {path: path.read_text("utf8") for path in (ROOT / "companion").rglob("*.py")}
    made = {path for path, text in texts.items() if re.search(r"""import_module\([^"']|__import__""", text)}
    assert names(made, ROOT) == {"data/__init__", "experiments/base"}


def test_every_file_of_the_package_belongs_to_somebody():
    package = Package(ROOT)
    assert package.reached(["import math"]) == set(), (
        "no module names these, so that all pages depend on them"
    )
    assert package.reached(["from companion.models.blocks import BasicResidualBlock"]) == {
        ROOT / "companion" / name for name in ("__init__.py", "models/__init__.py", "models/blocks.py")
    }


def test_only_the_page_that_reaches_a_change_is_executed(tmp_path):
    book = Book(tmp_path)
    other = CHAPTER.replace("executions.txt", "others.txt").replace(
        "import answer", "import answer as _\nfrom companion.extra import answer"
    )
    book.write("companion/extra.py", "def answer():\n    return 6\n")
    book.write(
        "_toc.yml",
        "format: jb-book\nroot: book/index\nchapters:\n  - file: book/chapter\n  - file: book/other\n",
    )
    book.write(
        "book/other.md",
        HEADER + other.replace("companion.answer import answer as _\n", "pathlib import Path as _\n"),
    )

    def executed():
        status, output = book.build()
        assert status == 0, output
        return book.executions(), len((tmp_path / "book/others.txt").read_text())

    assert executed() == (1, 1)
    book.write("companion/extra.py", "def answer():\n    return 5\n")
    assert executed() == (1, 2)
    book.write("companion/answer.py", "def answer():\n    return 6  # with a word\n")
    assert executed() == (2, 2)
    shutil.rmtree(tmp_path / "_build/.jupyter_cache/book/other")  # its outputs are lost
    assert executed() == (2, 3)
