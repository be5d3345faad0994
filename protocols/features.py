"""Frozen features: the evaluation view of every clip, encoded once and kept.

Persons are encoded one by one and pooled (see methods/persons.py); unobserved tokens are not pooled. The encoder is
never changed: it runs in eval mode, without gradients, and its mode is put back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from methods.encoder import Encoder
from methods.persons import pooled
from protocols.recipes import RECIPES
from skeletons.augment import Augmentation
from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, Sampler, ViewConfig, centre_view, resample
from skeletons.streams import as_stream

VERSION = 2
RAW_FRAMES = 64


@torch.no_grad()
def extract(
    encoder: Encoder,
    store: ClipTensors,
    rows: Int[Tensor, " clip"],
    views: ViewConfig,
    pooling: str,
    batch: int = 256,
) -> Float[Tensor, "clip feature"]:
    """Features of clips.

    Args:
        encoder: of the store's topology, or of another body's (its joints are matched by name).
        rows: of the store.
        views: size and crop of the evaluation view.
        pooling: one of persons.POOLINGS.

    Returns:
        float32 on the CPU.
    """
    parts = rows.to(store.device).split(batch)
    with frozen_on(encoder, store) as frozen:
        found = [pooled(frozen, centre_view(store, part, views, encoder.frames), pooling) for part in parts]
    return torch.cat(found).float().cpu()


@torch.no_grad()
def extract_crops(
    encoder: Encoder,
    store: ClipTensors,
    rows: Int[Tensor, " clip"],
    views: ViewConfig,
    pooling: str,
    crops: int,
    seed: int,
    batch: int = 256,
) -> Float[Tensor, "crop clip feature"]:
    """Features of random crops of at least 64 frames, rotated by up to 0.3 rad about every axis: what the field's probe
    trains on (MAMP, feeder and engine_linprobe.py), cached instead of made anew in each epoch.

    Args:
        crops: of each clip.
        seed: of the crops.
    """
    recipe = RECIPES["mamp"]
    augmentation = Augmentation(recipe.augment, store.topology)
    sampler = Sampler(store, recipe.crops(views, encoder.frames), augmentation, one_person=False)
    found = []
    with frozen_on(encoder, store) as frozen:
        for crop in range(crops):
            for number, part in enumerate(rows.to(store.device).split(batch)):
                draws = Draws(seed, "probe crop", crop, number, device=store.device)
                found.append(pooled(frozen, sampler(part, draws)["clip"], pooling))
    return torch.cat(found).float().cpu().unflatten(0, (crops, -1))


@contextmanager
def frozen_on(encoder: Encoder, store: ClipTensors) -> Iterator[Encoder]:
    """The encoder in eval mode, for the store's body; its mode is put back."""
    training = encoder.training
    encoder.eval()
    try:
        yield encoder if encoder.topology == store.topology else encoder.on(store.topology).eval()
    finally:
        encoder.train(training)


def raw_features(store: ClipTensors, rows: Int[Tensor, " clip"]) -> Float[Tensor, "clip feature"]:
    """The floor without any encoder: coordinates of the whole clip, resampled to 64 frames, both persons, flattened;
    centred as the encoders' input is, and of the same stream."""
    rows = rows.to(store.device)
    joints, observed = resample(store, rows, torch.zeros_like(rows), store.length[rows], RAW_FRAMES)
    joints, _ = as_stream(store.stream, joints, observed, store.topology)
    return joints.flatten(1).float().cpu()


def labels_of(store: ClipTensors, rows: np.ndarray) -> Int[Tensor, " clip"]:
    """Classes of clips, on the CPU."""
    return store.labels.cpu()[torch.from_numpy(rows)]
