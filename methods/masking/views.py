"""Which views of a group are masked at all, and how much of each is hidden."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from methods.encoder import Encoder
from methods.masking import MaskContext, Masking, MaskingConfig, mask_context
from skeletons.randomness import Draws
from skeletons.sampling import Batch


class ViewMasking:
    """Masks the views of one group.

    The paper's way (`ratio_draw=uniform`): each view is masked with the same probability and draws its own ratio. The
    release's (`stratified`): exactly that share of the group is masked, and of n masked views the i-th hides a ratio
    from the i-th of n equal strata of the range, so that every batch covers it.

    Args:
        masking: the strategy.
        config: ratio and how it is drawn.
        probability: share of the views that are masked.
        shuffled: deal the strata out at random, else in the batch's order: then views of the first anchor hide less
            than those of the second (the release's local views, all of which are masked). Where only some are masked,
            always at random: in order they would be one anchor's.
    """

    def __init__(self, masking: Masking, config: MaskingConfig, probability: float = 1.0, shuffled: bool = True):
        self.masking, self.ratio, self.probability = masking, config.range(), probability
        self.stratified, self.shuffled = config.ratio_draw == "stratified", shuffled or probability < 1

    def __call__(
        self, view: Batch, encoder: Encoder, draws: Draws
    ) -> tuple[Bool[Tensor, "sequence patch joint"], MaskContext]:
        context = mask_context(view, encoder.patch, encoder.topology, self.ratio, draws, encoder.embeddings)
        masked = self._stratify(context, draws) if self.stratified else None
        mask = self.masking(context, draws.fork("mask"))
        if masked is None and self.probability < 1:
            masked = context.uniform(draws.fork("applied")) < self.probability
        return mask if masked is None else mask & masked[:, None, None], context

    def _stratify(self, context: MaskContext, draws: Draws) -> Bool[Tensor, " sequence"]:
        """Sets how many tokens of each view to hide; returns which views are masked."""
        total = len(context.hidden) * draws.world
        count = int(total * self.probability)
        place = self._place(context, draws)
        masked = place < count
        if self.ratio[0] < self.ratio[1]:
            share = (place + context.uniform(draws.fork("ratio"))) / max(1, count)
            share = self.ratio[0] + (self.ratio[1] - self.ratio[0]) * share
            context.hidden = (context.observed[0].numel() * share).long()
        context.hidden = torch.where(masked, context.hidden, 0)
        return masked

    def _place(self, context: MaskContext, draws: Draws) -> Int[Tensor, " sequence"]:
        """Each view's place in the order of the global batch, in which strata are dealt out."""
        views, clips, persons = context.rows
        if self.shuffled:
            place = draws.fork("order").order(clips, views, persons)
        else:
            clip = torch.arange(draws.rank * clips, (draws.rank + 1) * clips)[:, None, None]
            view = torch.arange(views)[:, None]
            place = (view * clips * draws.world + clip) * persons + torch.arange(persons)
        return place.transpose(0, 1).flatten().to(context.hidden.device)
