"""The map, its numbers, and the strips, against scikit-learn and plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods.encoder import EncoderConfig, make_encoder
from protocols.base import Subject, make_protocol
from protocols.embedding import EmbeddingConfig, beside, map_of, neighbours_of, spread, trust
from skeletons.clips import Clips
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, ViewConfig
from skeletons.splits import split


def blobs(clips: int = 60, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.arange(clips) % classes
    return 8 * torch.eye(12)[y] + 0.1 * torch.randn(clips, 12), y


def subject(clips: Clips, encoder: bool = True, seed: int = 0) -> Subject:
    views = ViewConfig(frames=16)
    torch.manual_seed(0)
    shape = EncoderConfig(width=8, depth=1, heads=2, patch=4)
    made = make_encoder(shape, clips.topology, 16) if encoder else None
    return Subject(made, clips, split(clips, "xsub"), ClipTensors(clips), views, "mean", seed)


def judged(data: Clips, encoder: bool = True, seed: int = 0, **changed):
    config = SimpleNamespace(embedding=EmbeddingConfig(**{"strips": 2, "neighbours": 3, "frames": 4, **changed}))
    return make_protocol("embedding", config)(subject(data, encoder, seed))


def test_the_map_keeps_groups_together_and_a_seed_fixes_it():
    x, y = blobs()
    placed = map_of(x, EmbeddingConfig(), Draws(0, "map"))
    assert placed.shape == (60, 2) and (y[beside(torch.from_numpy(placed))] == y).all()
    assert np.array_equal(placed, map_of(x, EmbeddingConfig(), Draws(0, "map")))


def test_a_collapsed_encoder_still_has_a_map():
    placed = map_of(torch.ones(20, 4), EmbeddingConfig(), Draws(0, "map"))
    assert np.isfinite(placed).all() and placed.std() > 0


def test_trustworthiness_equals_its_definition():
    """Venna & Kaski (2001), eq. 1, as plain loops over ranks."""
    x, placed, k = torch.randn(30, 5), np.random.default_rng(0).normal(size=(30, 2)), 4
    far, near = torch.cdist(x, x).numpy(), np.linalg.norm(placed[:, None] - placed[None], axis=-1)
    total = 0
    for i in range(30):
        by_features, on_map = (sorted((j for j in range(30) if j != i), key=lambda j: d[i, j]) for d in (far, near))
        total += sum(by_features.index(j) + 1 - k for j in on_map[:k] if j not in by_features[:k])
    expected = 100 * (1 - 2 / (30 * k * (2 * 30 - 3 * k - 1)) * total)
    assert trust(x, placed, k) == pytest.approx(expected)
    assert trust(x[:, :2], x[:, :2].numpy(), k) == 100


def test_neighbours_equal_a_plain_search_by_cosine():
    query, gallery = torch.randn(4, 6), torch.randn(50, 6)
    found, apart = neighbours_of(F.normalize(query, dim=1), F.normalize(gallery, dim=1), 5)
    for q, row, d in zip(query, found, apart):
        cosine = [float(sum(q * g)) / float(q.norm() * g.norm()) for g in gallery]
        assert row.tolist() == sorted(range(50), key=lambda i: -cosine[i])[:5]
        assert (1 - d.square() / 2).tolist() == pytest.approx([cosine[i] for i in row.tolist()], abs=1e-5)
    assert neighbours_of(query, gallery[:3], 5)[0].shape == (4, 3)


def test_queries_are_drawn_one_of_each_stretch():
    drawn = torch.stack([spread(20, 5, Draws(seed)) for seed in range(200)])
    assert (drawn // 4 == torch.arange(5)).all()
    assert drawn.flatten().bincount(minlength=20).min() > 20, "each clip has its chance: 50 times on average"
    assert spread(7, 99, Draws(0)).tolist() == list(range(7))


@pytest.mark.parametrize("encoder", [True, False])
@pytest.mark.parametrize("stream", ["joint", "bone"])
def test_strips_hold_the_clips_that_they_name(clips, encoder, stream):
    clips = replace(clips, stream=stream)  # bodies are drawn, whatever the encoder is fed
    found = judged(clips, encoder)
    given, arrays = subject(clips, encoder), found.arrays
    rows, part = arrays["strip_rows"], given.part
    assert (rows[:, 0] == part.test[arrays["strip_queries"]]).all() and np.isin(rows[:, 1:], part.train).all()
    assert arrays["strip_clips"].tolist() == [clips.names(r) for r in rows]
    assert (arrays["strip_classes"] == clips.labels[rows[:, 1:]]).all()
    assert arrays["strip_joints"].shape == (2, 4, 4, 2, 25, 3) and arrays["strip_observed"].shape == (2, 4, 4, 2, 25)
    row = int(rows[1, 2])
    first = clips.offsets[row] + math.floor(clips.lengths[row] * 0.05 / 2)
    expected = (clips.frames[first, 0] - clips.origin[row]).astype(np.float16)
    assert arrays["strip_joints"][1, 2, 0, 0] == pytest.approx(expected, abs=2e-3)
    assert (arrays["strip_observed"].any((2, 4)) <= clips.present[rows]).all()
    near = arrays["strip_near"]
    assert (np.diff(near, axis=1) <= 0).all() if encoder else (np.diff(near, axis=1) >= 0).all()
    if not encoder:
        q, g = given.features[1][arrays["strip_queries"][0]], given.features[0]
        assert near[0].tolist() == pytest.approx(sorted((g - q).norm(dim=1).tolist())[:3], rel=1e-5)


def test_labels_of_test_clips_only_score(clips):
    one = judged(clips)
    poisoned = subject(clips)
    poisoned.labels = (poisoned.labels[0], (poisoned.labels[1] + 1) % 3)
    config = SimpleNamespace(embedding=EmbeddingConfig(strips=2, neighbours=3, frames=4))
    other = make_protocol("embedding", config)(poisoned)
    kept = [k for k in one.arrays if not k.startswith("attention")]  # that is averaged by class
    assert all(np.array_equal(one.arrays[k], other.arrays[k]) for k in kept)
    assert one.metrics["trustworthiness"] == other.metrics["trustworthiness"] and one.predicted is None


def test_large_sets_are_drawn_from_and_scores_are_of_the_drawn(clips):
    found = judged(clips, clips=4)
    drawn = found.arrays["map_clips"]
    assert len(drawn) == 4 and (np.diff(drawn) > 0).all() and found.arrays["map"].shape == (4, 2)
    given = subject(clips)
    x, y = F.normalize(given.features[1], dim=1)[drawn], given.labels[1][drawn].tolist()
    alike = [y[max((j for j in range(4) if j != i), key=lambda j: float(x[i] @ x[j]))] == y[i] for i in range(4)]
    assert found.metrics["alike_by_features"] == pytest.approx(100 * np.mean(alike))
    assert {tuple(judged(clips, seed=s, clips=4).arrays["map_clips"]) for s in range(6)} != {tuple(drawn)}


def test_every_encoder_is_shown_with_the_same_clips(clips):
    one, raw = (judged(clips, encoder).arrays for encoder in (True, False))
    assert np.array_equal(one["strip_queries"], raw["strip_queries"])
    assert np.array_equal(one["map_clips"], raw["map_clips"])


@pytest.mark.parametrize(
    "wrong", [{"clips": 2}, {"components": 1}, {"perplexity": 0.5}, {"strips": 0}, {"neighbours": 0}, {"frames": 0}]
)
def test_sizes_that_cannot_be_drawn_are_refused(wrong):
    with pytest.raises(BadInput, match=rf"protocol\.embedding\.{next(iter(wrong))}="):
        make_protocol("embedding", SimpleNamespace(embedding=EmbeddingConfig(**wrong)))
