"""From masks to tokens: which are encoded, which are predicted, at sizes that do not change from step to step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from methods.encoder import Encoder
from methods.masking import MaskContext, Masking, mask_context
from methods.persons import sequences
from skeletons.randomness import Draws
from skeletons.sampling import Batch


@dataclass
class Shown:
    """One view of every present person, and what an encoder may see of it.

    Attributes:
        joints: metres.
        observed: which tokens have at least half of their frames observed.
        visible: flat indices of the visible tokens, ascending.
        filled: share of tokens whose state had to be changed to make the count exact.
    """

    joints: Float[Tensor, "sequence time joint 3"]
    observed: Bool[Tensor, "sequence patch joint"]
    visible: Int[Tensor, "sequence visible"]
    filled: Tensor

    @property
    def hidden(self) -> Bool[Tensor, "sequence token"]:
        """Tokens that are hidden and observed: what there is to predict."""
        return self.observed.flatten(1).scatter(1, self.visible, False)


def shown(
    batch: Batch,
    encoder: Encoder,
    masking: Masking,
    ratio: tuple[float, float],
    count: int,
    draws: Draws,
    absent: bool = False,
    removed: tuple[int, ...] = (),
) -> Shown:
    """Mask a batch for an encoder that is given `count` visible tokens of each present person.

    Args:
        absent: take absent persons too, as empty bodies that count as observed (MAMP's habit).
        removed: joints that are never shown.
    """
    context = mask_context(batch, encoder.patch, encoder.topology, ratio, draws, encoder.embeddings, removed)
    if absent:
        context.observed = torch.ones_like(context.observed) & context.kept
    visible, filled = visible_tokens(masking(context, draws.fork("mask")), count, context, draws.fork("complete"))
    if absent:
        return Shown(context.joints, context.observed, visible, filled)
    at = sequences(batch)
    joints, observed, visible = (t.index_select(0, at) for t in (context.joints, context.observed, visible))
    return Shown(joints, observed, visible, filled)


def visible_tokens(
    mask: Bool[Tensor, "sequence patch joint"], count: int, context: MaskContext, draws: Draws
) -> tuple[Int[Tensor, "sequence visible"], Tensor]:
    """Exactly `count` visible tokens of each sequence, for encoders that gather.

    A mask that falls short is filled with random tokens; one that hides too many gives random ones back. Unobserved
    tokens are hidden first, and those of removed joints before all.

    Returns:
        (flat indices in ascending order, share of tokens whose state had to be changed)
    """
    u = context.uniform(draws, *context.grid)
    score = u + (~mask).float() - 2 * (~context.observed).float()
    if context.removed:
        score = score - 4 * (~context.kept).float()
    visible = score.flatten(1).topk(count, dim=1).indices.sort(1).values
    chosen = torch.ones_like(mask).flatten(1).scatter(1, visible, False)
    return visible, (chosen != mask.flatten(1)).float().mean()


def hidden_index(
    mask: Bool[Tensor, "sequence patch joint"], ratio: tuple[float, float]
) -> tuple[Int[Tensor, " row"], Bool[Tensor, " row"]]:
    """Flat indices of hidden tokens, filled up with 0 to one of sixteen lengths, and which of them are real.

    Allocators fragment when every step asks for another size: without the filling, memory grows by 10 MB a step on the
    CPU. On the meta device, where nothing has a value, there are as many as the ratio leads one to expect.
    """
    if mask.is_meta:
        count = round(mask.numel() * sum(ratio) / 2)
        return torch.empty(count, dtype=torch.long, device="meta"), torch.ones(count, dtype=torch.bool, device="meta")
    found = mask.flatten().nonzero()[:, 0]
    step = -(-mask.numel() // 16)
    filled = F.pad(found, (0, -len(found) % step))
    return filled, torch.arange(len(filled), device=mask.device) < len(found)
