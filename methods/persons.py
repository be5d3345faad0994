"""Persons are encoded one by one: which rows are someone, and how their features become one clip's."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from methods.encoder import Encoder
from methods.masking import observed_patches
from skeletons.sampling import Batch


def sequences(batch: Batch) -> Int[Tensor, " sequence"]:
    """Indices of the present person slots of a folded batch; on the meta device, all of them."""
    present = batch.present.flatten()
    if present.is_meta:
        return torch.arange(len(present), device="meta")
    return present.nonzero()[:, 0]


def present_ones(
    batch: Batch,
) -> tuple[Float[Tensor, "sequence time joint 3"], Bool[Tensor, "sequence time joint"], Int[Tensor, " sequence"]]:
    """Joints of the present persons of every row, where they are observed, and the persons' slots (`sequences`)."""
    at = sequences(batch)
    joints, observed = (t.flatten(0, 1).index_select(0, at) for t in (batch.joints, batch.observed))
    return joints, observed, at


def pool(tokens: Float[Tensor, "sequence patch joint width"], observed: Tensor) -> Float[Tensor, "sequence width"]:
    """Mean of observed patch tokens.

    Args:
        observed: bool (sequence, patch, joint).
    """
    weight = observed.to(tokens.dtype)[..., None]
    return (tokens * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)


def mean_over_persons(
    features: Float[Tensor, "sequence feature"], at: Int[Tensor, " sequence"], batch: Batch
) -> Float[Tensor, "row feature"]:
    """Mean over the persons present in each row of the batch.

    Args:
        features: of the person slots `at`, see `sequences`.
    """
    row = torch.div(at, batch.present.shape[1], rounding_mode="floor")
    total = features.new_zeros(len(batch), features.shape[1]).index_add(0, row, features)
    return total / batch.present.sum(1, keepdim=True).clamp(min=1)


def pooled(encoder: Encoder, view: Batch, pooling: str = "mean") -> Float[Tensor, "row feature"]:
    """Features of each row of the batch: persons encoded one by one, their tokens pooled, the present ones averaged.

    Args:
        pooling: mean (observed patch tokens), or cls+mean (class token and mean, concatenated).
    """
    joints, observed, at = present_ones(view)
    tokens = encoder(joints)
    features = pool(tokens.patches, observed_patches(observed, encoder.patch))
    if pooling == "cls+mean" and tokens.cls is not None:
        features = torch.cat([tokens.cls, features], 1)
    return mean_over_persons(features, at, view)
