"""Linear classifiers that are trained together: many settings on the same batches, one matrix product for all.

SGD with momentum 0.9; the gradient of the cross-entropy is written out. A step on b clips of f features with s settings
and c classes is two products of b x f x sc and one softmax, in buffers that are kept: nothing of the size of the
data is copied, and no setting is looped over.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from skeletons.randomness import Draws

MOMENTUM = 0.9
START = 0.01
"""Std of the first weights. (The field's trunc-normal cuts at -2 and 2, absolute: at 200 std, which is never.)"""


class Heads:
    """One classifier for each setting, all from the same first weights.

    Args:
        rates, decays: learning rate and weight decay of each setting; decay is an L2 term on weights, not on biases.
        draws: of the first weights.

    Attributes:
        weight: (setting x class, feature).
        bias: (setting x class).
    """

    def __init__(
        self, width: int, classes: int, rates: list[float], decays: list[float], draws: Draws, device: torch.device
    ):
        self.settings, self.classes = len(rates), classes
        self.weight = (START * draws.normal(1, classes, width)).repeat(self.settings, 1, 1).flatten(0, 1).to(device)
        self.bias = self.weight.new_zeros(len(self.weight))
        self._momentum = torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        each = torch.tensor([rates, decays], device=device).repeat_interleave(classes, 1)
        self._rate, self._decay = each[0], each[1, :, None] if any(decays) else None
        self._buffers: tuple[Tensor, Tensor] | None = None

    def step(self, x: Float[Tensor, "clip feature"], y: Int[Tensor, " clip"], factor: float) -> None:
        """One step of every head.

        Args:
            factor: of the learning rates, by the schedule.
        """
        if self._buffers is None or len(self._buffers[0]) != len(x):
            made = x.new_empty(len(x), len(self.weight))
            self._buffers = made, torch.empty_like(made)
        logits, error = self._buffers
        torch.addmm(self.bias, x, self.weight.T, out=logits)
        shape = len(x), self.settings, self.classes
        torch.softmax(logits.view(shape), -1, out=error.view(shape))
        truth = y[:, None, None].expand(-1, self.settings, 1)
        error.view(shape).scatter_add_(2, truth, x.new_tensor(-1.0).expand(shape))
        of_weight, of_bias = self._momentum
        of_weight.addmm_(error.T, x, beta=MOMENTUM, alpha=1 / len(x))
        if self._decay is not None:
            of_weight.addcmul_(self.weight, self._decay)
        of_bias.mul_(MOMENTUM).add_(error.sum(0), alpha=1 / len(x))
        self.weight.addcmul_(of_weight, self._rate[:, None], value=-factor)
        self.bias.addcmul_(of_bias, self._rate, value=-factor)

    def logits(self, x: Float[Tensor, "clip feature"]) -> Float[Tensor, "setting clip class"]:
        """What every head says of every clip."""
        found = torch.addmm(self.bias, x, self.weight.T)
        return found.unflatten(1, (self.settings, self.classes)).transpose(0, 1)
