"""What is needed to publish: addresses, the workflow, citation, and the lists that are made for readers."""

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from book_indexes import _step
from book_reach import READ
from book_site import CARD_SIZE, address
from bs4 import BeautifulSoup
from PIL import Image
from sphinx.errors import ExtensionError

from tests.site.test_book import CHAPTER, HEADER, TEXT, Book
from tools.site import WANTED, faults

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text("utf8"))
URL = "https://example.org/a/book/"
GREEK = "alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|phi|psi"
PAGES = ["book/chapter.html", "book/figures.html", "book/index.html"]
FIGURE = "\n```{{figure}} _static/social.png\n:name: fig-card\n:alt: A card.\n\n{caption}\n```\n"
EXERCISE = """
**Which one?**
1. This one.
```{dropdown} Answer
**1.** This it is.
```
```{exercise-start} Try it
:label: ex-try
```
Write `f`, and ask `check("a", f)`.
```{exercise-end}
```
```{solution-start} ex-try
:class: dropdown
```
Like this.

```{code-cell} ipython3
"solved"
```

```{solution-end}
```
"""

pytestmark = pytest.mark.xdist_group("published")  # one after the other: they share a book


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A book with a list of its figures, built for a public address."""
    book = Book(tmp_path_factory.mktemp("published"))
    toc = "format: jb-book\nroot: book/index\nchapters:\n  - file: book/chapter\n  - file: book/figures\n"
    book.write("_toc.yml", toc)
    figure = FIGURE.format(caption="A first thing. Then more.")
    book.write("book/chapter.md", HEADER + CHAPTER + EXERCISE + TEXT + figure)
    book.write("book/index.md", "# A book\n\n```{learning-paths}\nImages: chapter\n```\n")
    book.write("book/figures.md", "# Figures\n\n```{figure-index}\n```\n")
    status, output = book.build(BOOK_URL=URL, BOOK_REPOSITORY="https://github.com/someone/something")
    assert status == 0, output
    return book


def test_a_site_with_an_address_can_be_found(book):
    assert re.findall(r"<loc>(.*)</loc>", book.html("sitemap.xml")) == [URL + page for page in PAGES]
    assert f"Sitemap: {URL}sitemap.xml" in book.html("robots.txt")
    assert book.html(".nojekyll") == ""
    for name in ("book/index.html", "index.html"):
        assert f'<link rel="canonical" href="{URL}book/index.html" />' in book.html(name)
        assert f'<meta property="og:image" content="{URL}_static/social.png" />' in book.html(name)
        assert '<meta name="twitter:card" content="summary_large_image" />' in book.html(name)


def test_the_page_for_missing_pages_works_below_a_path(book):
    page = book.html("404.html")
    local = [link for link in re.findall(r'(?:href|src)="([^"#]*)"', page) if link and "://" not in link]
    assert {link[: len("/a/book/")] for link in local} == {"/a/book/"}
    assert 'href="/a/book/book/index.html"' in page


def test_buttons_lead_to_sources_that_exist(book):
    links = re.findall(r'href="https://github.com/someone/something([^"?]*)', book.html("book/chapter.html"))
    assert "/blob/main/book/chapter.md" in links
    for link in links:
        name = link.removeprefix("/blob/main/")
        assert link in ("", "/issues/new") or (book.folder / name).is_file()


def test_the_colab_button_leads_to_a_notebook_that_installs_the_package(book):
    colab = "https://colab.research.google.com/github/someone/something/blob/notebooks/"
    (link,) = set(re.findall(rf'href="{re.escape(colab)}([^"]*)"', book.html("book/chapter.html")))
    assert colab not in book.html("book/figures.html")  # no notebook
    notebook = nbformat.read(book.folder / "_build/html/_sources" / link, as_version=4)
    assert "git+https://github.com/someone/something@main" in notebook.cells[0].source
    uploads = [step.get("with", {}) for step in WORKFLOW["jobs"]["site"]["steps"]]
    assert {"name": "notebooks", "path": "_build/html/_sources/**/*.ipynb"}.items() <= uploads[-1].items()


def test_the_notebook_is_plain_markdown(book):
    notebook = nbformat.read(book.folder / "_build/html/_sources/book/chapter.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    link = f"{URL}book/chapter.html"
    label = re.search(r"As He and others \[(\w+)\] say", text)
    assert label, text
    assert f"in [A chapter]({link}), [the one page]({link}).\nSee More and Fig. 1." in text
    assert f"- [{label[1]}] Kaiming He" in text
    assert not re.search(r"\{[a-z:]+\}`|^(```|:::)\{|^\(sec", text, re.MULTILINE), text


def test_solutions_are_folded_in_the_notebook_and_left_out_of_the_assignment(book):
    folders = (book.folder / "_build" / name for name in ("html/_sources/book", "assignments"))
    notebook, left = (nbformat.read(folder / "chapter.ipynb", as_version=4).cells for folder in folders)
    sources = [cell.source for cell in notebook]
    place = sources.index("### A solution")
    assert sources[place - 1].endswith('# Write your code here. Then ask: check("a", f)')
    assert sources[place + 1 : place + 3] == ["Like this.", '"solved"']
    assert notebook[place].metadata["jp-MarkdownHeadingCollapsed"]
    assert [cell.source for cell in left] == sources[:place] + sources[place + 3 :]
    assert "\n\n<details><summary>Answer</summary>\n\n**1.** This it is." in sources[place - 2]


def test_a_learning_path_has_the_times_of_its_chapters(book):
    page = BeautifulSoup(book.html("book/index.html"), "html.parser").article
    assert re.fullmatch(r"Images: \d+ s of computing", page.dt.text.strip("#"))
    assert re.fullmatch(r"A chapter, \d+ s", page.select_one("ul li").text.strip())


def test_the_list_of_figures_follows_and_a_site_without_addresses_promises_nothing(book):
    link = 'href="chapter.html#fig-card"><span>Fig. 1: A first thing</span>'
    assert link in book.html("book/figures.html")
    book.write("book/chapter.md", HEADER + CHAPTER + FIGURE.format(caption="Another thing."))
    status, output = book.build()
    assert status == 0, output
    assert link.replace("A first thing", "Another thing") in book.html("book/figures.html")
    for name in ("sitemap.xml", "robots.txt"):
        assert not (book.folder / "_build" / "html" / name).exists()
    page = book.html("book/chapter.html")
    for word in ("canonical", "og:image", "github.com", "colab"):
        assert word not in page
    assert 'href="/book/index.html"' in book.html("404.html")


def test_a_learning_path_to_nowhere_ends_the_build():
    app = SimpleNamespace(env=SimpleNamespace(titles={}))
    with pytest.raises(ExtensionError, match="book/nowhere, which is no page"):
        _step(app, "book/index", "book/nowhere")


@pytest.mark.parametrize("url", ["example.org/book", "ftp://example.org/", "https://example.org/?a=1"])
def test_half_an_address_is_refused(url, monkeypatch):
    with pytest.raises(ExtensionError, match="BOOK_URL should look like"):
        address("BOOK_URL", url)
    monkeypatch.setenv("BOOK_URL", URL)
    assert address("BOOK_URL", url) == URL.rstrip("/")


def test_a_folder_that_is_not_for_readers_is_not_uploaded(tmp_path):
    assert "index.html is missing" in faults(tmp_path)
    rows = "<tr><td>scale</td><td>{}</td></tr><tr><td>CIFAR-10</td><td>{}</td></tr>"
    for name in (*WANTED, "book/reference/execution.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'<link rel="canonical" href="{URL}book/index.html" />')
    execution = tmp_path / "book/reference/execution.html"
    execution.write_text("<table>" + rows.format("smoke", "synthetic stand-in") + "</table>")
    assert [fault.split(",")[0] for fault in faults(tmp_path)] == [
        "the chapters were executed at smoke scale",
        "the chapters show synthetic stand-ins; see that the data can be fetched",
    ]
    execution.write_text("<table>" + rows.format("live", "real, from a mirror") + "</table>")
    assert faults(tmp_path) == []
    locations = (f"<url><loc>{URL}book/{name}.html</loc></url>" for name in ("index", "gone"))
    head = '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    (tmp_path / "sitemap.xml").write_text(head + "".join(locations) + "</urlset>")
    assert faults(tmp_path) == ["sitemap.xml does not list the pages that are there"]


def test_the_workflow_may_do_no_more_than_it_must():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    jobs = WORKFLOW["jobs"]
    assert {name: job.get("permissions") for name, job in jobs.items()} == {
        "test": None,
        "site": {"contents": "read", "pages": "read"},
        "notebooks": {"contents": "write"},
        "publish": {"pages": "write", "id-token": "write"},
    }
    for name in ("notebooks", "publish"):
        assert jobs[name]["if"] == "github.ref == 'refs/heads/main'"
    assert set(jobs["notebooks"]["needs"]) == {"test", "site"}
    assert jobs["publish"]["needs"] == ["notebooks"]  # no page before what its buttons lead to
    assert WORKFLOW["concurrency"]["group"]


def test_the_workflow_keeps_outputs_under_what_they_depend_on():
    steps = WORKFLOW["jobs"]["site"]["steps"]
    (step,) = (step for step in steps if step.get("id") == "outputs")
    assert step["with"]["path"] == "_build/.jupyter_cache"
    patterns = re.findall(r"'([^']+)'", step["with"]["key"])
    hashed = {path for pattern in patterns for path in ROOT.glob(pattern)}
    package = {path for path in (ROOT / "companion").rglob("*") if path.suffix in (".py", *READ)}
    assert hashed == package | {ROOT / "requirements.txt"} | set((ROOT / "book").rglob("*.md"))


def test_all_places_name_the_same_version_and_the_picture_has_the_size_that_is_told():
    with Image.open(ROOT / "book/_static/social.png") as picture:
        assert picture.size == CARD_SIZE
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    preferred = citation["preferred-citation"]
    page = (ROOT / "book/reference/citing.md").read_text("utf8")
    assert citation["version"] == preferred["version"] == version
    assert re.findall(r"(title|year|version) *= \{(.*)\}", page) == [
        ("title", preferred["title"]),
        ("year", str(preferred["year"])),
        ("version", version),
    ]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text("utf8")


def symbols(text: str) -> set[str]:
    """The letters that stand for something in the formulas of a page."""
    code = re.compile(r"^```\{code-cell\}.*?^```", re.DOTALL | re.MULTILINE)
    formulas = re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", code.sub("", text), re.DOTALL)
    found = set()
    for formula in ("".join(parts) for parts in formulas):
        words = re.sub(r"\\(operatorname|mathrm|text)\{[^}]*\}", " ", formula)
        words = re.sub(r"\\mathcal ?\{?F\}?", r"\\F", words)
        letters = re.findall(rf"\\(?:{GREEK}|omega|ell|F)(?![a-z])", words)
        found |= {*letters, *re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", words))}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "book").glob("*.md")), ids=lambda path: path.stem)
def test_every_symbol_is_in_the_notation(path):
    known = symbols((ROOT / "book/reference/notation.md").read_text("utf8"))
    missing = symbols(path.read_text("utf8")) - known
    assert not missing, f"tell them in book/reference/notation.md: {sorted(missing)}"
