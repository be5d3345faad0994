"""Where autocast must not reach: sums, small temperatures and choices that half precision would spoil."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full(x: Tensor) -> Tensor:
    """x in float32, or float64 where it is. Under autocast matrix products go on in half precision all the same: see
    `without_autocast`."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(x: Tensor) -> AbstractContextManager:
    """In this context products of tensors on x's device are computed in the tensors' own type."""
    device = autocast_device(x)  # entering torch.autocast costs as much as several small operations
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def autocast_device(x: Tensor) -> str:
    """x's kind of device, as autocast knows it."""
    return "cpu" if x.is_meta else x.device.type
