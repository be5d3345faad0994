"""Draws are a function of (seed, purpose, step) and of the sample's place in the global batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skeletons.randomness import Draws, permutation

KINDS = pytest.mark.parametrize("kind", ["uniform", "normal"])


@KINDS
def test_the_same_key_draws_the_same_numbers(kind):
    a, b = (getattr(Draws(3, 7).fork("crop"), kind)(4, 5) for _ in range(2))
    assert torch.equal(a, b)
    assert (a.shape, a.dtype) == ((4, 5), torch.float32)


@KINDS
@pytest.mark.parametrize("other", [(4, 7, "crop"), (3, 8, "crop"), (3, 7, "mirror"), (3, 7, "crop", "x"), (37, "crop")])
def test_another_seed_step_or_purpose_draws_other_numbers(kind, other):
    assert not torch.equal(getattr(Draws(3, 7, "crop"), kind)(64), getattr(Draws(*other), kind)(64))


def test_order_between_purposes_is_irrelevant():
    one, two = Draws(0, 1), Draws(0, 1)
    first = one.fork("a").uniform(8), one.fork("b").uniform(8)
    second = two.fork("b").uniform(8), two.fork("a").uniform(8)
    assert torch.equal(first[0], second[1])
    assert torch.equal(first[1], second[0])


def test_calls_within_a_purpose_follow_each_other():
    draws = Draws(0, 1, "a")
    first, second = draws.uniform(8), draws.uniform(8)
    again = Draws(0, 1, "a")
    assert not torch.equal(first, second)
    assert torch.equal(again.uniform(8), first)
    assert torch.equal(again.uniform(8), second)


def test_all_forks_of_a_step_share_the_shared_stream():
    a, b = Draws(0, 1).fork("augment", "global"), Draws(0, 1).fork("augment", "local8")
    assert torch.equal(a.shared("mirror").uniform(8), b.shared("mirror").uniform(8))
    assert not torch.equal(a.fork("mirror").uniform(8), b.fork("mirror").uniform(8))
    assert not torch.equal(a.shared("mirror").uniform(8), Draws(0, 2).fork("augment").shared("mirror").uniform(8))


@KINDS
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_slice_the_draw_of_the_global_batch(kind, world):
    whole = getattr(Draws(5, 2).fork("a"), kind)(12, 3)
    parts = [getattr(Draws(5, 2, rank=r, world=world).fork("a"), kind)(12 // world, 3) for r in range(world)]
    assert torch.equal(torch.cat(parts), whole)
    shared = [Draws(5, 2, rank=r, world=world).shared("m").uniform(12 // world) for r in range(world)]
    assert torch.equal(torch.cat(shared), Draws(5, 2).shared("m").uniform(12))


def test_uniform_stays_in_its_range_and_fills_it():
    x = Draws("range").uniform(20000, low=-2.0, high=3.0)
    assert (x >= -2).all()
    assert (x < 3).all()
    assert x.min() < -1.99
    assert x.max() > 2.99
    assert abs(x.mean() - 0.5) < 0.05


def test_normal_has_mean_0_and_deviation_1():
    x = Draws("normal").normal(20000)
    assert abs(x.mean()) < 0.03
    assert abs(x.std() - 1) < 0.03


def test_permutation_is_one_and_depends_on_its_path_alone():
    p = permutation(100, 0, "epoch", 3)
    assert sorted(p.tolist()) == list(range(100))
    np.testing.assert_array_equal(p, permutation(100, 0, "epoch", 3))
    assert (p != permutation(100, 0, "epoch", 4)).any()


def test_the_generator_is_the_one_that_results_were_made_with():
    """Known answers: if these change, no earlier run can be repeated, and every component version must rise."""
    draws = Draws(0, 1, "known")
    torch.testing.assert_close(draws.uniform(3), torch.tensor(UNIFORM), rtol=0, atol=1e-7)
    torch.testing.assert_close(draws.normal(3), torch.tensor(NORMAL), rtol=0, atol=1e-6)
    assert draws.torch_seed() == SEED
    assert permutation(8, 0, "known").tolist() == PERMUTATION
    assert 0 <= SEED < 2**32


UNIFORM = [0.31764585, 0.09487289, 0.95517254]
NORMAL = [0.4493798, 0.7328015, -3.2105112]
SEED = 2374613256
PERMUTATION = [4, 7, 6, 5, 3, 1, 2, 0]


def test_an_order_is_one_of_the_global_batch_and_ranks_slice_it():
    whole = Draws(0, 1).order(6, 2)
    assert sorted(whole.flatten().tolist()) == list(range(12))
    parts = [Draws(0, 1, rank=rank, world=3).order(2, 2) for rank in range(3)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(Draws(0, 2).order(6, 2), whole)


def test_noise_on_the_cpu_is_normal():
    assert torch.equal(Draws(0, 1).noise(4, 3), Draws(0, 1).normal(4, 3))
