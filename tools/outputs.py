"""The pages' outputs, published beside the site, with which others build the book without executing it.

`python -m tools.outputs [PLACE]` takes them from a file, or from the site's address, into the cache, and
prints what they were made under, by which the build finds them. `tools/site.py` writes them. The archive has
executed notebooks in JSON, and neither programs nor paths; beside it stands its SHA-256.
"""

import gzip
import hashlib
import json
import os
import sys
from pathlib import Path
from urllib.request import urlopen

import nbformat
import yaml
from book_cache import conditions, page_key
from book_reach import Package
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

ROOT = Path(__file__).parents[1]
NAME = "outputs.json.gz"
NOWHERE = (
    "name a site, `make read BOOK_URL=https://.../`, or a file, `make read OUTPUTS=FILE`; or `make book`"
)


def caches(root: Path, around: str) -> dict[str, Path]:
    """Where the outputs of each page are kept that are made under certain conditions."""
    package, folder = Package(root), root / "_build/.jupyter_cache"
    pages = {path.relative_to(root).with_suffix(""): path for path in sorted(root.glob("book/**/*.md"))}
    keys = {page.as_posix(): page_key(package, path, around) for page, path in pages.items()}
    return {page: folder / page / key for page, key in keys.items() if key}


def write(folder: Path, root: Path = ROOT) -> None:
    """Put the archive and its digest into a built site."""
    around, pages = conditions(), {}
    for page, cache in caches(root, around).items():
        for record in get_cache(cache).list_cache_records() if cache.is_dir() else ():
            notebook = get_cache(cache).get_cache_bundle(record.pk).nb
            pages[page] = {"key": cache.name, "data": record.data, "notebook": notebook}
    content = gzip.compress(json.dumps({"conditions": around, "pages": pages}).encode(), mtime=0)
    (folder / NAME).write_bytes(content)
    (folder / f"{NAME}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {NAME}\n", "utf8")


def fetched(place: str) -> bytes:
    """The content of a file, or of an address."""
    with urlopen(place if "://" in place else Path(place).absolute().as_uri(), timeout=60) as reply:
        return bytes(reply.read())


def read(place: str, root: Path = ROOT) -> str:
    """Take an archive's outputs into the cache; return what they were made under."""
    content, digest = fetched(place), fetched(f"{place}.sha256")
    if digest.split()[:1] != [hashlib.sha256(content).hexdigest().encode()]:
        raise ValueError("it is not the file whose SHA-256 stands beside it")
    archive = json.loads(gzip.decompress(content))
    around, missing = str(archive["conditions"]), []
    for page, cache in caches(root, around).items():
        found = archive["pages"].get(page, {})
        if cache.is_dir():
            continue
        if found.get("key") != cache.name:
            missing.append(page)
            continue
        notebook = nbformat.from_dict(found["notebook"])
        nbformat.validate(notebook)
        bundle = CacheBundleIn(notebook, page, data=found["data"])
        get_cache(cache).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    print(
        f"Outputs from {place}; executed here, for they differ: {', '.join(missing) or 'none'}.",
        file=sys.stderr,
    )
    return around


def main() -> None:
    """Read from the place that is given, or from the site's address."""
    url = (
        os.environ.get("BOOK_URL")
        or yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["html"]["baseurl"]
    )
    place = "".join(sys.argv[1:]) or (url and f"{url.rstrip('/')}/{NAME}")
    if not place:
        sys.exit(f"No outputs to read: {NOWHERE}.")
    try:
        print(read(place))
    except (OSError, ValueError, KeyError, TypeError, nbformat.ValidationError) as error:
        sys.exit(f"{place} cannot be read: {error}\nNothing was built; {NOWHERE}.")


if __name__ == "__main__":
    main()
