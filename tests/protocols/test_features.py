"""Frozen features: what is pooled, and that the encoder is left as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from methods.backbone import Transformer
from methods.encoder import Encoder, EncoderConfig
from protocols.features import extract, extract_crops, labels_of, raw_features
from skeletons.clips import Clips
from skeletons.errors import BadInput
from skeletons.sampling import ClipTensors, ViewConfig, centre_view
from skeletons.topology import KINECT_V1, KINECT_V2

VIEWS = ViewConfig(frames=16)
SMALL = EncoderConfig(width=16, depth=1, heads=2, patch=4)


@pytest.fixture
def encoder() -> Encoder:
    return Transformer(SMALL, KINECT_V2, 16)


@pytest.fixture
def store(clips: Clips) -> ClipTensors:
    return ClipTensors(clips)


def everything(store: ClipTensors) -> torch.Tensor:
    return torch.arange(len(store))


@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_is_left_as_it_was(encoder, store, training):
    encoder.train(training)
    encoder.register_buffer("statistics", torch.randn(3))
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    seen = []
    encoder.embed.register_forward_hook(lambda module, given, out: seen.append((encoder.training, out.requires_grad)))
    features = extract(encoder, store, everything(store), VIEWS, "mean")
    extract_crops(encoder, store, everything(store), VIEWS, "cls+mean", 2, seed=0)
    assert set(seen) == {(False, False)}
    assert encoder.training == training and all(m.training == training for m in encoder.modules())
    after = encoder.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.requires_grad and p.grad is None for p in encoder.parameters())
    assert features.dtype == torch.float32 and not features.requires_grad


def test_its_mode_is_put_back_after_an_error(encoder, store):
    with pytest.raises(IndexError):
        extract(encoder.train(), store, torch.tensor([10**6]), VIEWS, "mean")
    assert encoder.training
    with pytest.raises(BadInput, match="did you mean 'mean'"):
        extract(encoder, store, everything(store), VIEWS, "men")
    assert encoder.training


@pytest.mark.parametrize("pooling", ["mean", "cls+mean"])
def test_features_are_the_mean_over_observed_tokens_and_present_persons(encoder, store, clips, pooling):
    features = extract(encoder, store, everything(store), VIEWS, pooling)
    assert features.shape == (len(clips), 16 if pooling == "mean" else 32)
    skipped = 0
    for i, (first, last) in enumerate(zip(clips.offsets[:-1], clips.offsets[1:])):
        cut = int((last - first) * (1 - VIEWS.test_crop) / 2)
        frames = np.arange(first + cut, last - cut)
        at = np.linspace(0, len(frames) - 1, 16)
        low, high = np.floor(at + 1e-9).astype(int), np.ceil(at - 1e-9).astype(int)
        persons = []
        for person in np.flatnonzero(clips.present[i]):
            x, y = clips.frames[frames[low], person], clips.frames[frames[high], person]
            x = x + (at - low)[:, None, None] * (y - x) - clips.origin[i]
            seen = clips.observed[frames[low], person] & clips.observed[frames[high], person]
            kept = seen.reshape(4, 4, 25).mean(1) >= 0.5
            skipped += (~kept).sum()
            with torch.no_grad():
                tokens = encoder.eval()(torch.from_numpy(x.astype(np.float32))[None])
            feature = tokens.patches[0][torch.from_numpy(kept)].mean(0)
            persons.append(feature if pooling == "mean" else torch.cat([tokens.cls[0], feature]))
        torch.testing.assert_close(features[i], torch.stack(persons).mean(0), rtol=0, atol=1e-5)
    assert skipped > 0 and clips.present[:, 1].any()  # the fixture has both gaps and second persons


def test_what_was_not_observed_is_not_pooled(encoder, clips):
    lost = np.array(clips.observed)
    lost[:, :, 3] = False
    with_head, without = (
        extract(encoder, ClipTensors(c), torch.arange(len(clips)), VIEWS, "mean")
        for c in (clips, replace(clips, observed=lost))
    )
    difference = (with_head - without).abs().amax(1)
    assert difference[9] == 0  # its head was never there
    assert difference[torch.arange(12) != 9].min() > 1e-6


def test_what_stands_in_an_absent_persons_place_does_not_matter(encoder, clips):
    frames = np.array(clips.frames)
    clip_of = np.repeat(np.arange(len(clips)), clips.lengths)
    frames[~clips.present[clip_of]] = 7.0
    plain, other = (
        extract(encoder, ClipTensors(c), torch.arange(len(clips)), VIEWS, "cls+mean")
        for c in (clips, replace(clips, frames=frames))
    )
    assert torch.equal(plain, other)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_size_of_a_batch_does_not_matter(encoder, store, batch):
    whole, parts = (extract(encoder, store, everything(store), VIEWS, "cls+mean", n) for n in (256, batch))
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-6)


def test_rows_are_chosen_and_kept_in_order(encoder, store, clips):
    rows = torch.tensor([7, 2, 2])
    features = extract(encoder, store, everything(store), VIEWS, "mean")
    torch.testing.assert_close(extract(encoder, store, rows, VIEWS, "mean"), features[rows], rtol=0, atol=1e-6)
    assert labels_of(store, rows.numpy()).tolist() == clips.labels[rows.numpy()].tolist()


def test_an_encoder_without_class_token_pools_patches_only(store):
    encoder = Transformer(replace(SMALL, class_token=False, registers=0), KINECT_V2, 16)
    both, mean = (extract(encoder, store, everything(store), VIEWS, p) for p in ("cls+mean", "mean"))
    assert torch.equal(both, mean)


def test_an_encoder_of_another_body_is_matched_by_name(store):
    encoder = Transformer(SMALL, KINECT_V1, 16)
    features = extract(encoder, store, everything(store), VIEWS, "mean")
    assert torch.equal(features, extract(encoder.on(KINECT_V2), store, everything(store), VIEWS, "mean"))
    assert len(encoder.joint) == 20


def test_random_crops_are_a_function_of_the_seed(encoder, store):
    rows = everything(store)
    first, again, other = (extract_crops(encoder, store, rows, VIEWS, "mean", 3, seed) for seed in (0, 0, 1))
    assert first.shape == (3, len(store), 16)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert all(not torch.equal(a, b) for a, b in ((first[0], first[1]), (first[1], first[2])))


def test_raw_features_are_the_centred_coordinates_of_the_whole_clip(store, clips):
    raw = raw_features(store, everything(store)).view(len(clips), 2, 64, 25, 3)
    for i in (0, 5, 8):
        first, last = clips.offsets[i], clips.offsets[i + 1] - 1
        for t, frame in ((0, first), (63, last)):
            expected = (clips.frames[frame] - clips.origin[i]) * clips.present[i][:, None, None]
            torch.testing.assert_close(raw[i, :, t], torch.from_numpy(expected), rtol=0, atol=1e-5)


def two_bodies(store: ClipTensors, encoder: Encoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of each body alone, (slot, clip, feature), also of those that are not there; and who is."""
    view = centre_view(store, everything(store), VIEWS)
    with torch.no_grad():
        slots = [encoder.eval()(view.joints[:, slot]).patches.mean((1, 2)) for slot in range(2)]
    return torch.stack(slots), view.present


@pytest.mark.parametrize("pooling", ["mean", "max", "sum", "concat", "mamp"])
def test_persons_are_pooled_as_papers_do(encoder, clips, pooling):
    whole = ClipTensors(replace(clips, observed=np.ones_like(clips.observed)))
    (first, second), present = two_bodies(whole, encoder)
    both = present.all(1, keepdim=True)
    nobody = torch.zeros_like(second)
    expected = {
        "mean": torch.where(both, (first + second) / 2, first),
        "max": torch.where(both, first.maximum(second), first),
        "sum": torch.where(both, first + second, first),
        "concat": torch.cat([first, torch.where(both, second, nobody)], 1),
        "mamp": (first + second) / 2,
    }[pooling]
    found = extract(encoder, whole, everything(whole), VIEWS, pooling)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert both.any() and not both.all()
    named = extract(encoder, whole, everything(whole), VIEWS, f"mean/{pooling}")
    assert torch.equal(found, named)


def test_tokens_and_persons_are_pooled_apart(encoder, store):
    plain, joined = (extract(encoder, store, everything(store), VIEWS, p) for p in ("concat", "cls+mean/concat"))
    assert joined.shape[1] == 2 * plain.shape[1]
    torch.testing.assert_close(joined[:, 16:32], plain[:, :16])
