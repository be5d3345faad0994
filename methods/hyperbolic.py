"""The Poincare ball of curvature -c: maps to and from its tangent space at the origin, and distances (Ganea et al.,
2018).

The ball has radius 1 / sqrt(c). exp0(x) = tanh(sqrt(c) |x|) x / (sqrt(c) |x|) takes a Euclidean vector into it, log0 is
its inverse, and

    d(u, v) = arcosh(1 + f c |u - v|^2 / ((1 - c |u|^2) (1 - c |v|^2))) / sqrt(c)

with f = 2 is the length of the shortest path. HA-CM's released code has f = 4, which is no metric of curvature -c, but
orders pairs alike; it is an argument here.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

EDGE = 1e-5  # points stay this share of the radius away from the rim, where distances are infinite (HA-CM's release)


def _length(x: Tensor) -> Tensor:
    """Norm of the last dimension, kept; never 0, and with a finite gradient at 0."""
    return x.square().sum(-1, keepdim=True).clamp(min=1e-30).sqrt()


def project(x: Float[Tensor, "*point width"], c: float = 1.0) -> Float[Tensor, "*point width"]:
    """x, pulled back into the ball where it lies on the rim or outside."""
    return x * ((1 - EDGE) / c**0.5 / _length(x)).clamp(max=1.0)


def exp0(x: Float[Tensor, "*point width"], c: float = 1.0) -> Float[Tensor, "*point width"]:
    """The point of the ball that x, a tangent vector at the origin, leads to."""
    scaled = c**0.5 * _length(x)
    return project(x * (torch.tanh(scaled) / scaled), c)


def log0(y: Float[Tensor, "*point width"], c: float = 1.0) -> Float[Tensor, "*point width"]:
    """The tangent vector at the origin that leads to y: the inverse of `exp0`."""
    y = project(y, c)
    scaled = c**0.5 * _length(y)
    return y * (torch.atanh(scaled) / scaled)


def _arcosh_of_one_plus(z: Tensor) -> Tensor:
    """arcosh(1 + z), exact for small z too."""
    return torch.log1p(z + (z * (z + 2)).sqrt())


def distances(
    u: Float[Tensor, "*batch left width"], v: Float[Tensor, "*batch right width"], c: float = 1.0, factor: float = 2.0
) -> Float[Tensor, "*batch left right"]:
    """Poincare distance of every u to every v, points of the ball; not for gradients.

    Args:
        factor: 2, or 4 as in HA-CM's released code.
    """
    # By differences: the expansion |u|^2 + |v|^2 - 2 uv would lose all digits near the rim.
    apart = torch.cdist(u, v, compute_mode="donot_use_mm_for_euclid_dist").square()
    room_u, room_v = (1 - c * x.square().sum(-1) for x in (u, v))
    z = factor * c * apart / (room_u[..., :, None] * room_v[..., None, :])
    return _arcosh_of_one_plus(z) / c**0.5
