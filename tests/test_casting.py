"""The casting images: archives of any make, the cache, the stand-in, and the real ones where they are."""

import hashlib
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from companion.data import casting, fetch
from companion.data.casting import load_casting, synthetic_archive
from companion.data.download import DataError, Source, read_members
from companion.data.images import share_by_hash
from tests.packing import tar_gz


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """Few generated images in the archive's layout, with a copy."""
    kept = {n: c for n, c in synthetic_archive().items() if not "train/normal_0040" <= n < "train/x"}
    return kept | {"train/copy.png": kept["proliv/spill_0000.png"]}


def packed(path: Path, files: dict[str, bytes], top: str = "dataset") -> Path:
    path.write_bytes(tar_gz({f"{top}/{name}": content for name, content in files.items()}))
    return path


@pytest.fixture
def archive(mirror, files, monkeypatch) -> Path:
    """A mirror that holds an archive, a cache of its own, and no other source."""
    path = packed(mirror / "casting.tar.gz", files)
    source = Source("", path.name, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    monkeypatch.setattr(casting, "CASTING", replace(casting.CASTING, sources=(source,)))
    monkeypatch.setattr(casting, "CONTENT_SHA256", casting.content_digest(files))
    return path


def test_the_archive_becomes_splits_without_common_images(archive):
    data = load_casting((16, 24), color=True)
    parts = [data.train, data.validation, data.tuning, data.development, data.test]
    assert [len(part) for part in parts] == [32, 8, 60, 132, 528]
    assert [int(part.labels.sum()) for part in parts] == [0, 0, 60, 12, 48]
    hashes = [set(part.hashes) for part in parts]
    assert sum(map(len, hashes)) == len(set().union(*hashes))
    assert data.train.images.shape[1:] == (3, 16, 24)
    assert len(data.development) + len(data.test) == 660
    assert not data.synthetic
    assert data.digest == casting.CONTENT_SHA256
    assert load_casting((16, 24)).source == "cache: casting.zip"


def test_the_archive_of_a_whole_repository_will_do_and_another_is_passed_over(archive, files, monkeypatch):
    folder, inside = archive.parent, files | {"../Weights/huge.h5": b"x" * 10, ".DS_Store": b"x"}
    archive.unlink()
    sources = tuple(Source(f"https://example.invalid/{n}", f"{n}.tar.gz", "", 10) for n in "01")
    monkeypatch.setattr(casting, "CASTING", replace(casting.CASTING, sources=sources))
    packed(folder / "0.tar.gz", inside | {"train/more.png": b"x"}, "repository-0/dataset")
    with pytest.raises(DataError, match="does not hold the casting images as expected"):
        fetch(casting.CASTING)
    packed(folder / "1.tar.gz", inside, "repository-1/dataset")
    assert load_casting((16, 24)).source == "a mirror's 1.tar.gz"


def test_links_in_archives_are_passed_over(tmp_path):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(packed(path, {}), "w:gz") as links:
        for kind, name in ((tarfile.SYMTYPE, "train/link.jpg"), (tarfile.DIRTYPE, "train/folder.jpg")):
            member = tarfile.TarInfo(f"dataset/{name}")
            member.type, member.linkname = kind, "/etc/passwd"
            links.addfile(member)
    assert read_members(path, casting.FILES) == {}


def test_the_real_images_are_what_was_counted(monkeypatch):
    monkeypatch.setenv("COMPANION_OFFLINE", "1")  # a test downloads nothing
    try:
        files = casting.read_real(casting.CASTING)[0]
    except DataError:
        pytest.skip("the casting images are out of reach here")
    assert casting.content_digest(files) == casting.CONTENT_SHA256
    items = casting.archive_items(files)
    assert len(items) == 13_948
    assert sum(label for name, label, _ in items if name.startswith("test")) == 129
    few, unread = casting.read_images(items[::500], (28, 48), color=True)
    assert (len(few), unread) == (28, ())
    tests = [(label, content()) for name, label, content in items if "test/" in name]
    labels, contents = zip(*tests, strict=True)
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    chosen = share_by_hash(hashes, 0.2, labels, salt="development")
    assert (int(chosen.sum()), sum(label for label, c in zip(labels, chosen, strict=True) if c)) == (777, 24)
    assert len(set(hashes)) == 2941 + 121
