"""Measures of an embedding space, against counting by hand and spaces whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from companion.models.masked_resnet import SelfSupervisedResNet
from companion.objectives.selfsupervised import (
    embed,
    linear_probe,
    neighbor_agreement,
    neighbor_purity,
    neighbours,
)

RNG = np.random.default_rng(0)


def test_rows_are_embedded_in_batches_as_at_once_and_the_mode_is_kept():
    torch.manual_seed(0)
    net = SelfSupervisedResNet(2, [3], d_model=8, num_blocks=1, dropout=0.5).train()
    numbers, categories = torch.randn(7, 2), torch.randint(0, 3, (7, 1))
    found = embed(net, numbers, categories, batch_size=3)
    assert net.training
    assert found.shape == (7, 8)
    assert found.dtype == np.float32
    net.eval()
    np.testing.assert_allclose(found, net.embed(numbers, categories).detach().numpy(), atol=1e-6)
    assert embed(net, numbers[:0], categories[:0]).shape == (0, 8)


def test_neighbours_are_those_of_all_distances():
    vectors = RNG.normal(size=(30, 4))
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert np.array_equal(neighbours(vectors, 5), distances.argsort(axis=1)[:, :5])
    for count in (0, 30):
        with pytest.raises(ValueError, match="have no"):
            neighbours(vectors, count)


def test_purity_is_counted_and_near_chance_without_a_relation():
    vectors, labels = RNG.normal(size=(400, 3)), RNG.integers(0, 4, 400)
    by_hand = np.mean(
        [(labels[row] == label).mean() for row, label in zip(neighbours(vectors), labels, strict=True)]
    )
    assert neighbor_purity(vectors, labels) == pytest.approx(by_hand)
    assert 0.2 < by_hand < 0.3
    assert neighbor_purity(np.eye(4)[labels] * 100 + vectors[:, :1], labels) == 1


def test_a_rotated_space_agrees_with_itself_and_another_does_not():
    vectors = RNG.normal(size=(300, 6))
    turned = vectors @ np.linalg.qr(RNG.normal(size=(6, 6)))[0] * 3
    assert neighbor_agreement(vectors, turned) > 0.99
    assert neighbor_agreement(vectors, RNG.normal(size=(300, 6))) < 0.1
    with pytest.raises(ValueError, match="same rows"):
        neighbor_agreement(vectors, vectors[1:])


def test_a_probe_reads_what_is_linear_and_nothing_from_noise():
    vectors, noise = RNG.normal(size=(400, 5)), RNG.normal(size=(400, 5))
    labels = np.where(vectors @ np.arange(5) > 0, "up", "down")
    assert linear_probe(vectors[:300], labels[:300], vectors[300:], labels[300:]) > 0.9
    assert linear_probe(noise[:300], labels[:300], noise[300:], labels[300:]) < 0.65
