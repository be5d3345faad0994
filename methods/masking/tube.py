"""Semantic tubes: connected joints of one part of the body, hidden for a while."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from methods.masking import MaskContext, Masking, MaskingConfig
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.topology import Topology


class TubeMasking(Masking):
    """Semantic tube masking (SLiM, section 3.3 and algorithm 1).

    Until the asked count is reached: a part of the body, a connected subset of its joints (size uniform, then uniform
    among the connected subsets of that size), and an area drawn uniformly give a tube whose duration is area / width
    (constant volume), at a random time. A tube that would overshoot, or hides nothing new, is rejected and drawn again;
    ten rejections in a row end the search, so the realised count may fall short by a few tokens.

    Its parts can be taken away (`masking.subsets`, `masking.volume`). `contiguous` is the release: a stretch, at a
    uniform place, of a part's joints listed from the root outwards, which is not connected where fingers are listed
    without their hand. ASSUMPTION: `volume=free` draws the duration uniformly, up to what is left to hide.
    """

    name = "tube"
    needs = frozenset({"topology"})
    exact = False
    reads = ("ratio", "least_area", "largest_area")
    options = ("subsets", "volume")
    rounds = 96  # enough for ratio 0.9 on 8 x 25 tokens: 99 % of masks end within 60

    def __init__(self, config: MaskingConfig):
        super().__init__(config)
        self._table: dict[Topology, tuple[Tensor, Tensor]] = {}

    def subsets(self, topology: Topology) -> tuple[Bool[Tensor, "subset joint"], Float[Tensor, " subset"]]:
        """All subsets a tube may have, and the cumulative probability of drawing each."""
        if topology not in self._table:
            rows, weights = [], []
            parts = list(topology.parts.values())
            for members in parts:
                subsets = self._subsets_of(topology, members)
                sizes = [len(s) for s in subsets]
                for subset in subsets:
                    rows.append([j in subset for j in range(len(topology))])
                    weights.append(1 / (len(parts) * len(set(sizes)) * sizes.count(len(subset))))
            self._table[topology] = torch.tensor(rows), torch.tensor(weights).cumsum(0)
        return self._table[topology]

    def _subsets_of(self, topology: Topology, members: Sequence[int]) -> Sequence[Sequence[int]]:
        if self.config.subsets == "connected":
            return topology.connected_subsets(members)
        sizes = range(1, len(members) + 1)
        if self.config.subsets == "contiguous":
            listed = [j for j in topology.order if j in members]
            return [listed[at : at + size] for size in sizes for at in range(len(listed) - size + 1)]
        if len(members) > 14:
            raise BadInput(f"masking.subsets=any: a part of {len(members)} joints has too many subsets")
        return [subset for size in sizes for subset in combinations(members, size)]

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        times, joints = context.grid
        mask = torch.zeros_like(context.observed)
        if mask.is_meta:
            return mask
        tokens = times * joints
        least = max(1, round(self.config.least_area * tokens))
        largest = max(least, int(self.config.largest_area * tokens))
        u = context.uniform(draws, self.rounds, 3)
        table, cumulative = (t.to(mask.device) for t in self.subsets(context.topology))
        chosen = torch.searchsorted(cumulative, u[..., 0].contiguous()).clamp(max=len(table) - 1)
        time = torch.arange(times, device=mask.device)
        failures = torch.zeros(len(mask), dtype=torch.long, device=mask.device)
        for i in range(self.rounds):
            left = (context.hidden - mask.sum((1, 2))).clamp(max=largest)
            active = (left > 0) & (failures < 10)
            if i % 8 == 0 and not active.any():
                break
            subset = table[chosen[:, i]]
            low = left.clamp(max=least)
            width = subset.sum(1)
            if self.config.volume == "constant":
                area = low + (u[:, i, 1] * (left - low + 1)).floor()
                duration = (area / width).round().clamp(1, times)
            else:
                duration = 1 + (u[:, i, 1] * (left / width).floor().clamp(1, times)).floor()
            begin = (u[:, i, 2] * (times - duration + 1)).floor()
            during = (time >= begin[:, None]) & (time < (begin + duration)[:, None])
            tube = during[:, :, None] & subset[:, None, :]
            new = (tube & ~mask).sum((1, 2))
            accepted = active & (new > 0) & (new <= left)
            mask = mask | (tube & accepted[:, None, None])
            failures = torch.where(accepted, 0, failures + 1)
        return mask
