"""Fetches the scripts and fonts that pages need, so that no page asks another host for them.

They are listed in ``assets.toml``, come from the npm registry once, are checked against their SHA-256 and
kept in the cache folder of the package. The build copies them to ``_static/vendor``.
"""

import hashlib
import os
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pooch
from filelock import FileLock
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from companion.data.download import DataError, npm_pack


@dataclass(frozen=True)
class Asset:
    """Files of one npm package."""

    package: str  # name@version
    sha256: str  # of the package's archive
    members: tuple[tuple[str, str], ...]  # prefix inside the package, and the folder for what follows it


TABLE = tomllib.loads(Path(__file__).with_name("assets.toml").read_text("utf8"))
ASSETS, PLAY, (AXE,) = (
    tuple(Asset(own["package"], own["sha256"], tuple(own["members"].items())) for own in TABLE[kind])
    for kind in ("site", "play", "axe")
)


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
            if member.isfile() and (name := _target(member.name, asset)):
                path = (folder / name).resolve()
                if not path.is_relative_to(folder.resolve()):
                    raise ExtensionError(f"{asset.package} holds a file outside its folder: {member.name}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())


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


def setup(app: Sphinx) -> None:
    """Add the fetched files to the site's static files."""
    app.connect("config-inited", lambda app, config: config.html_static_path.append(str(vendor(ASSETS))))
