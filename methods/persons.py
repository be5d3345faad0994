"""Persons are encoded one by one: which rows are someone, and how their features become one clip's.

Papers pool a clip's persons in different ways, so a pooling is written TOKENS/PERSONS. TOKENS: `mean` of the observed
patch tokens, or `cls+mean`, the class token before it. PERSONS: `mean` or `max` over those present, `sum` over them
(SLiM's probe), `concat` (SLiM's 1-NN: a slot for each person, zeros where there is none), or `mamp`: the mean over
all slots, where an absent person is an empty body that is encoded like any other (MAMP, main_linprobe.py). One word
means `mean` for the other half.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from methods.encoder import Encoder
from methods.masking import observed_patches
from skeletons.errors import unknown
from skeletons.sampling import Batch

TOKENS = ("mean", "cls+mean")
PERSONS = ("mean", "max", "sum", "concat", "mamp")
POOLINGS = ("mean", "cls+mean", "max", "sum", "concat", "mamp", *(f"{t}/{p}" for t in TOKENS for p in PERSONS))


def parse_pooling(pooling: str) -> tuple[str, str]:
    """(tokens, persons) of a pooling's name.

    Raises:
        BadInput: it is none.
    """
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    tokens, _, persons = pooling.partition("/")
    if tokens in TOKENS:
        return tokens, persons or "mean"
    return "mean", tokens


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
    return _sum_over_persons(features, at, batch) / batch.present.sum(1, keepdim=True).clamp(min=1)


def _sum_over_persons(features: Tensor, at: Tensor, batch: Batch) -> Tensor:
    row = torch.div(at, batch.present.shape[1], rounding_mode="floor")
    return features.new_zeros(len(batch), features.shape[1]).index_add(0, row, features)


def over_persons(
    features: Float[Tensor, "sequence feature"], at: Int[Tensor, " sequence"], batch: Batch, persons: str
) -> Float[Tensor, "row pooled"]:
    """One feature for each row of the batch, see the module's text.

    Args:
        features: of the person slots `at`, see `sequences`; for `mamp`, all slots.
        persons: one of PERSONS.
    """
    if persons == "mean":
        return mean_over_persons(features, at, batch)
    if persons == "sum":
        return _sum_over_persons(features, at, batch)
    slots = features.new_full((batch.present.numel(), features.shape[1]), -torch.inf if persons == "max" else 0.0)
    slots = slots.index_copy(0, at, features).unflatten(0, batch.present.shape)
    if persons == "concat":
        return slots.flatten(1)
    if persons == "mamp":
        return slots.mean(1)
    return slots.amax(1).masked_fill(~batch.present.any(1, keepdim=True), 0.0)  # a row without persons is zero


def pooled_ones(
    view: Batch, persons: str
) -> tuple[Float[Tensor, "sequence time joint 3"], Bool[Tensor, "sequence time joint"], Int[Tensor, " sequence"]]:
    """What to encode for a pooling of persons: joints, where they are observed, and slots, see `present_ones`."""
    if persons != "mamp":
        return present_ones(view)
    at = torch.arange(view.present.numel(), device=view.joints.device)
    return view.joints.flatten(0, 1), torch.ones_like(view.observed.flatten(0, 1)), at


def pooled(encoder: Encoder, view: Batch, pooling: str = "mean") -> Float[Tensor, "row feature"]:
    """Features of each row of the batch: persons encoded one by one, their tokens pooled, then the persons.

    Args:
        pooling: one of POOLINGS.
    """
    tokens_by, persons_by = parse_pooling(pooling)
    joints, observed, at = pooled_ones(view, persons_by)
    tokens = encoder(joints)
    features = pool(tokens.patches, observed_patches(observed, encoder.patch))
    if tokens_by == "cls+mean" and tokens.cls is not None:
        features = torch.cat([tokens.cls, features], 1)
    return over_persons(features, at, view, persons_by)
