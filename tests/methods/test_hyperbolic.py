"""The Poincare ball against plain formulas, and the identities of its geometry."""

from __future__ import annotations

import math

import pytest
import torch

from methods.encoder import EncoderConfig, make_encoder
from methods.hyperbolic import EDGE, distances, exp0, log0, project
from skeletons.errors import BadInput
from skeletons.topology import OPENNI

curvatures = pytest.mark.parametrize("c", [1.0, 0.3, 4.0])


def points(count: int, c: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Points of the ball, some near its rim."""
    x = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    radius = torch.linspace(0.01, 0.999, count, dtype=torch.float64) / c**0.5
    return x / x.norm(dim=1, keepdim=True) * radius[:, None]


@curvatures
def test_exponential_map_and_its_inverse_by_formula(c):
    x = torch.randn(6, 5, dtype=torch.float64)
    for row, there in zip(x, exp0(x, c)):
        n = math.sqrt(sum(float(v) ** 2 for v in row))
        assert there.tolist() == pytest.approx(
            [math.tanh(math.sqrt(c) * n) / (math.sqrt(c) * n) * float(v) for v in row], rel=1e-12
        )
    torch.testing.assert_close(log0(exp0(x, c), c), x, rtol=1e-9, atol=0)
    y = points(9, c)
    torch.testing.assert_close(exp0(log0(y, c), c), y, rtol=1e-12, atol=0)


def test_the_origin_stays_and_has_a_gradient():
    x = torch.zeros(2, 3, requires_grad=True)
    y = exp0(x)
    y.sum().backward()
    assert (y == 0).all() and torch.equal(x.grad, torch.ones(2, 3))
    assert (log0(torch.zeros(2, 3)) == 0).all()


@curvatures
def test_what_is_far_away_ends_inside_the_rim(c):
    far = exp0(torch.tensor([[1e3, 0.0, 0.0], [1e-3, 0.0, 0.0]]), c)
    assert float(far[0].norm()) == pytest.approx((1 - EDGE) / c**0.5, rel=1e-6)
    assert float(far[1].norm()) == pytest.approx(1e-3, rel=1e-5)
    inside = points(5, c)
    assert torch.equal(project(inside, c), inside)
    assert distances(far[:1], -far[:1], c).isfinite().all()


@pytest.mark.parametrize("factor", [2.0, 4.0])
@curvatures
def test_distances_by_formula(c, factor):
    u, v = points(6, c), points(4, c, seed=1)
    found = distances(u, v, c, factor)
    for i, a in enumerate(u.tolist()):
        for j, b in enumerate(v.tolist()):
            apart = sum((x - y) ** 2 for x, y in zip(a, b))
            room = (1 - c * sum(x * x for x in a)) * (1 - c * sum(y * y for y in b))
            expected = math.acosh(1 + factor * c * apart / room) / math.sqrt(c)
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-9)


@curvatures
def test_distances_are_a_metric_that_grows_as_twice_the_tangent(c):
    u = points(12, c)
    d = distances(u, u, c)
    torch.testing.assert_close(d, d.T)
    assert (d.diagonal() == 0).all() and (d + torch.eye(12) > 0).all()
    assert (d[:, None, :] <= d[:, :, None] + d[None] + 1e-12).all()  # i to k is no longer than by j
    origin = torch.zeros(1, 5, dtype=torch.float64)
    x = torch.randn(7, 5, dtype=torch.float64)
    torch.testing.assert_close(distances(exp0(x, c), origin, c)[:, 0], 2 * x.norm(dim=1), rtol=1e-10, atol=0)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    torch.testing.assert_close(distances(u @ turn, u @ turn, c), d)


def test_as_the_ball_flattens_distances_become_twice_euclidean():
    u = points(5) * 0.5
    torch.testing.assert_close(distances(u, u, 1e-10), 2 * torch.cdist(u, u), rtol=1e-8, atol=1e-8)


# --- as an embedding of the encoder


def encoder(**fields):
    torch.manual_seed(0)
    return make_encoder(EncoderConfig(width=16, depth=1, heads=2, patch=4, **fields), OPENNI, 16).double()


@pytest.mark.parametrize("position", ["rope", "learned"])
def test_tokens_enter_the_blocks_as_points_of_the_ball(position):
    ball, flat = (encoder(position=position, embedding=e, curvature=0.5) for e in ("hyperbolic", "euclidean"))
    x, seen = torch.randn(3, 16, 15, 3, dtype=torch.float64), []
    for model in (ball, flat):
        model.blocks[0].register_forward_pre_hook(lambda block, given: seen.append(given[0]))
        model(x)
    inside, outside = (tokens[:, ball.extra :] for tokens in seen)
    torch.testing.assert_close(inside, exp0(outside, 0.5))
    assert torch.equal(seen[0][:, : ball.extra], seen[1][:, : ball.extra])  # class token and registers as they are
    torch.testing.assert_close(ball.embeddings(x).flatten(1, 2), outside)  # Euclidean for masking strategies
    assert not torch.allclose(ball(x).patches, flat(x).patches)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embedding": "hyprbolic"}, "did you mean 'hyperbolic'"),
        ({"curvature": 0.0}, "backbone.curvature=0.0 must be positive"),
    ],
)
def test_unknown_embeddings_and_flat_balls_are_refused(fields, message):
    with pytest.raises(BadInput, match=message):
        encoder(**fields)
