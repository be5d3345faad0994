"""Training in several processes (ranks), each with an equal share of every batch's clips.

What is minimised is the mean over ranks of their losses, so a plain mean over clips needs nothing from this file.
Three things do, or two ranks would not train as one with the same batch:

- a sum over what ranks have unequally many of (masked tokens, persons): divide by its `denominator`;
- a statistic of the whole batch (Sinkhorn's shares, variances, covariances): `total`, `BatchNorm`;
- a comparison between clips (nearest rows, correlations, keys of a queue): `gather`.

Gradients pass through `total` and `gather` to every rank. With one rank each is the identity, so that a process alone
gives the same bits as if this file were not there.

Gradients are averaged here, in one flat buffer, and not by `nn.parallel.DistributedDataParallel`, which would average
them too: it wraps the forward pass of a module, where a method has a `loss` that runs its networks several times, and
copies buffers (queue, centre, running statistics) that are equal on all ranks anyway.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world() -> int:
    """How many ranks train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this process is."""
    return dist.get_rank() if world() > 1 else 0


def total(x: Tensor) -> Tensor:
    """Sum of x over ranks, the same on all of them."""
    return x if world() == 1 else _Total.apply(x)


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks, those of rank 0 first; ranks may have unequally many."""
    return x if world() == 1 else _Gather.apply(x)


def everywhere(count: int, like: Tensor) -> int:
    """Sum of a number over ranks.

    Args:
        like: any tensor on the device that ranks talk through.
    """
    return count if world() == 1 else int(_summed(torch.tensor(count, device=like.device)))


def denominator(count: Tensor) -> Tensor:
    """What this rank divides its sum over `count` things by, for the ranks' mean to be the mean over all of them: the
    global count, at least 1, over the number of ranks."""
    least = total(count).clamp(min=1)
    return least if world() == 1 else least / world()


def _summed(x: Tensor) -> Tensor:
    x = x.contiguous().clone()
    dist.all_reduce(x)
    return x


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


class _Gather(torch.autograd.Function):
    """As a sum of rows that only their owner fills in: no padding where ranks have unequally many."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        counts = torch.zeros(world(), dtype=torch.long, device=x.device)
        counts[rank()] = len(x)
        begins = [0, *_summed(counts).cumsum(0).tolist()]
        ctx.own = slice(begins[rank()], begins[rank() + 1])
        every = x.new_zeros(begins[-1], *x.shape[1:])
        every[ctx.own] = x
        return _summed(every)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)[ctx.own]


def of_one_rank(module: nn.Module) -> list[str]:
    """Names of batch norms that would see each rank's own rows alone."""
    norms = nn.modules.batchnorm._BatchNorm
    return [name for name, m in module.named_modules() if isinstance(m, norms) and not isinstance(m, BatchNorm)]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of (row, channel, ...) by the rows of all ranks. (torch's SyncBatchNorm needs GPUs.)"""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions from two on."""

    def forward(self, input: Tensor) -> Tensor:
        if world() == 1 or not (self.training or self.running_mean is None):
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        over, shape = [0, *range(2, x.ndim)], [-1, *[1] * (x.ndim - 2)]
        count = everywhere(x.numel() // x.shape[1], x)
        mean = total(x.sum(over)) / count
        centred = x - mean.view(shape)
        variance = total(centred.square().sum(over)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            assert self.momentum is not None
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                unbiased = variance * (count / max(1, count - 1))
                self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        x = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x.to(input.dtype)


@torch.no_grad()
def average(parameters: Iterable[nn.Parameter], values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Average gradients over ranks, in place, and numbers beside them: one message a step.

    Args:
        parameters: whose gradients; those that have none have none on any rank, for all run the same graph.
        values: scalars.

    Returns:
        the scalars' averages, which are the same on all ranks.
    """
    if world() == 1:
        return values
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([x.flatten().to(gradients[0]) for x in (*gradients, *values.values())])
    dist.all_reduce(flat)
    parts = (flat / world()).split([x.numel() for x in (*gradients, *values.values())])
    for gradient, mean in zip(gradients, parts):
        gradient.copy_(mean.view_as(gradient))
    return {name: mean[0] for name, mean in zip(values, parts[len(gradients) :])}


@torch.no_grad()
def copy_first(module: nn.Module) -> None:
    """Give every rank rank 0's weights and buffers: machines of different make start from different last bits."""
    if world() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)
