"""What the heads of a probe's recipe read of a frozen encoder: class tokens and mean patch tokens, by block.

All heads' features are columns of one matrix, so a batch is encoded once for all of them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from methods.encoder import Encoder
from methods.masking import observed_patches
from methods.persons import over_persons, pool, pooled_ones
from protocols.recipes import Recipe
from skeletons.sampling import Batch, ClipTensors, ViewConfig, centre_view

Part = tuple[int, str]
"""Blocks above this one, and `cls` or `mean`."""


def parts_of(tokens: str, blocks: int, cls: bool) -> list[Part]:
    """What a head reads.

    Args:
        tokens: mean, cls or cls+mean.
        blocks: last blocks whose class tokens it reads.
        cls: the encoder has class tokens; else the mean patch tokens stand in for them (ASSUMPTION: SLiM's probe was
            used on SLiM alone).
    """
    if tokens == "mean":
        return [(0, "mean")]
    found = [(block, "cls" if cls else "mean") for block in range(blocks)]
    return found + [(0, "mean")] * (tokens == "cls+mean" and cls)


class Readout:
    """Features of a frozen encoder for a recipe's heads.

    Args:
        encoder: of the store's topology, in eval mode.
        recipe: tokens, blocks and persons to read. Blocks that the encoder has not, and heads that would read the same
            as another, are left out.

    Attributes:
        heads: what each kind of head reads, in words -> its columns.
    """

    def __init__(self, encoder: Encoder, recipe: Recipe, store: ClipTensors):
        self.encoder, self.persons, self.frames = encoder, recipe.persons, encoder.frames
        self._most = max(recipe.blocks)
        with torch.no_grad():
            shown = encoder.last_blocks(store.frames.new_zeros(1, encoder.frames, len(store.topology), 3), self._most)
        self._most = len(shown)
        kinds: dict[tuple[Part, ...], str] = {}
        for tokens in recipe.tokens:
            for blocks in recipe.blocks:
                blocks = min(blocks, self._most)
                name = f"{tokens} of {blocks} block(s)"
                kinds.setdefault(tuple(parts_of(tokens, blocks, shown[0].cls is not None)), name)
        self._parts = list(dict.fromkeys(part for kind in kinds for part in kind))
        width = encoder.width
        at = {part: torch.arange(width) + width * number for number, part in enumerate(self._parts)}
        everything = len(self._parts)
        self.heads: dict[str, Int[Tensor, " column"] | None] = {
            name: None if len(kind) == everything else torch.cat([at[part] for part in kind]).to(store.device)
            for kind, name in kinds.items()
        }

    @torch.no_grad()
    def __call__(self, view: Batch) -> Float[Tensor, "row feature"]:
        """Features of each row: persons encoded one by one, then pooled."""
        joints, observed, at = pooled_ones(view, self.persons)
        if self._most > 1:
            shown = self.encoder.last_blocks(joints, self._most)
        else:
            shown = [self.encoder(joints)]
        patches = observed_patches(observed, self.encoder.patch)
        found = []
        for block, kind in self._parts:
            cls = shown[block].cls
            found.append(cls if kind == "cls" and cls is not None else pool(shown[block].patches, patches))
        return over_persons(torch.cat(found, 1), at, view, self.persons).float()

    def whole(
        self, store: ClipTensors, rows: Int[Tensor, " clip"], views: ViewConfig, batch: int = 256
    ) -> Float[Tensor, "clip feature"]:
        """Features of the evaluation view of clips."""
        parts = rows.to(store.device).split(batch)
        return torch.cat([self(centre_view(store, part, views, self.frames)) for part in parts])
