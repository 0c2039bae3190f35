"""Look over links outside the built pages: python tools/links.py, with --online also those to other hosts.

Links between pages of the book are checked by its build and by `make check`. Here it is the files that people
read in the repository: README.md, CONTRIBUTING.md, CHANGELOG.md. With --online every address in them, in the
chapters, in references.bib and among the data sources is asked for; that takes minutes and needs the network.
"""

import re
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import requests

from companion.data.download import REGISTRY

ROOT = Path(__file__).parents[1]
FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
WITH_ADDRESSES = (*FILES, "references.bib", "book/*.md", "book/reference/*.md")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ADDRESS = re.compile(r"https?://[^\s\"'<>`)}\]]+")
NUMBERED = {"doi": "https://doi.org/", "eprint": "https://arxiv.org/abs/"}  # in references.bib
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
EXAMPLES = ("example.org", "127.0.0.1")
REFUSES_ROBOTS = (401, 403, 405, 429)  # the page is there, and wants a person


def broken_files(root: Path, files: Iterable[str]) -> list[str]:
    """The links to files of the repository that lead nowhere."""
    links = (
        (name, link) for name in files for link in LINK.findall(CODE.sub("", (root / name).read_text("utf8")))
    )
    return [
        f"{name}: {link}"
        for name, link in links
        if not urlsplit(link).scheme and not ((root / name).parent / urlsplit(link).path).exists()
    ]


def addresses(root: Path, patterns: Iterable[str]) -> dict[str, str]:
    """Every address of another host, and the first file that has it."""
    found: dict[str, str] = {}
    for path in (path for pattern in patterns for path in sorted(root.glob(pattern))):
        text = path.read_text("utf8")
        urls = ADDRESS.findall(text)
        for kind, start in NUMBERED.items():
            numbers = re.findall(rf"^ *{kind} *= *\{{(.+?)\}}", text, re.MULTILINE)
            urls += [start + number for number in numbers]
        for url in urls:
            if urlsplit(url).hostname not in (None, *EXAMPLES):
                found.setdefault(url.rstrip(".,;:*"), path.relative_to(root).as_posix())
    return found


def fault(url: str, timeout: float = 20) -> str:
    """Why an address does not lead to a page, or ``""``."""
    try:
        with requests.get(url, timeout=timeout, stream=True, headers={"User-Agent": "Mozilla/5.0"}) as reply:
            bad = reply.status_code >= 400 and reply.status_code not in REFUSES_ROBOTS
            return f"status {reply.status_code}" if bad else ""
    except requests.RequestException as error:
        return type(error).__name__


def main() -> None:
    """Print what was found; exit with 1 if there is anything."""
    found = broken_files(ROOT, FILES)
    if "--online" in sys.argv:
        places = addresses(ROOT, WITH_ADDRESSES)
        sources = (source.url for data in REGISTRY.values() for source in data.sources)
        places |= {url: "companion/data/registry.toml" for url in sources if url.startswith("http")}
        with ThreadPoolExecutor(8) as pool:
            faults = pool.map(fault, places)
        found += [f"{places[url]}: {url}: {why}" for url, why in zip(places, faults, strict=True) if why]
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
