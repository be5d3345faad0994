"""Losses and statistics against loops and known cases."""

from __future__ import annotations

import math

import pytest
import torch

from methods.losses import (
    barlow_twins,
    contrasts,
    effective_rank,
    koleo,
    masked_mean,
    patch_normalised,
    spread,
    variance_covariance,
)


def test_koleo_is_minus_the_mean_log_distance_to_the_nearest_row():
    x = torch.randn(7, 5, dtype=torch.float64)
    x[3] = 2 * x[0] + 0.01  # a near neighbour once lengths are taken away
    logs = []
    for i in range(7):
        a = x[i] / x[i].norm()
        logs.append(math.log(min(float((a - x[j] / x[j].norm()).norm()) for j in range(7) if j != i) + 1e-6))
    assert float(koleo(x)) == pytest.approx(-sum(logs) / 7, abs=1e-12)


def test_koleo_pushes_neighbours_apart_and_is_finite_for_equal_rows():
    x = torch.randn(6, 3, requires_grad=True)
    before = koleo(x)
    (gradient,) = torch.autograd.grad(before, x)
    assert koleo(x.detach() - 0.01 * gradient) < before
    same = torch.ones(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(koleo(same), same)
    assert torch.isfinite(koleo(same)) and torch.isfinite(gradient).all()


def test_patches_are_normalised_by_their_unbiased_variance():
    x = torch.randn(4, 12, dtype=torch.float64) * 3 + 1
    for row, got in zip(x.tolist(), patch_normalised(x).tolist()):
        mean = sum(row) / 12
        variance = sum((v - mean) ** 2 for v in row) / 11
        assert got == pytest.approx([(v - mean) / math.sqrt(variance + 1e-6) for v in row], abs=1e-12)
    assert patch_normalised(torch.full((1, 12), 0.5)).abs().max() == 0


def test_masked_mean_of_nothing_is_zero_with_zero_gradient():
    x = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    assert masked_mean(x, torch.tensor([True, False, True])) == 3.5
    nothing = masked_mean(x, torch.zeros(3, dtype=torch.bool))
    nothing.backward()
    assert nothing == 0 and x.grad is not None and x.grad.abs().max() == 0


def test_collapsed_features_have_no_spread_and_rank_one():
    same = torch.randn(1, 8).expand(20, 8)
    assert spread(same) == pytest.approx(0, abs=1e-6)
    assert effective_rank(torch.ones(20, 8)) == pytest.approx(1)
    line = torch.linspace(-1, 1, 20)[:, None] * torch.randn(1, 8) + 5
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)


def test_features_in_all_directions_have_full_spread_and_rank():
    axes = torch.cat([torch.eye(8), -torch.eye(8)])
    assert spread(axes) == pytest.approx(1)
    assert effective_rank(axes) == pytest.approx(8)
    assert effective_rank(axes[:, :5] @ torch.eye(5, 8)) == pytest.approx(5, rel=1e-4)
    assert spread(10 * axes) == pytest.approx(1)


def test_variance_and_covariance_are_over_the_rows_that_count():
    x = torch.randn(9, 4, dtype=torch.float64) * torch.tensor([0.1, 0.5, 1.5, 3.0], dtype=torch.float64) + 2
    where = torch.tensor([True, True, False, True, True, False, True, True, True])
    rows = x[where].tolist()
    mean = [sum(r[i] for r in rows) / 7 for i in range(4)]

    def covariance(i: int, j: int) -> float:
        return sum((r[i] - mean[i]) * (r[j] - mean[j]) for r in rows) / 6

    hinge = sum(max(0.0, 1.2 - math.sqrt(covariance(i, i) + 1e-4)) for i in range(4)) / 4
    apart = sum(covariance(i, j) ** 2 for i in range(4) for j in range(4) if i != j) / 4
    found = variance_covariance(x, where, 1.2)
    assert [float(v) for v in found] == pytest.approx([hinge, apart], rel=1e-12)
    found = variance_covariance(x + 100 * (~where)[:, None], where, 1.2)  # the other rows do not matter
    assert [float(v) for v in found] == pytest.approx([hinge, apart], rel=1e-12)


def test_variance_of_equal_rows_and_of_none_is_finite():
    x = torch.ones(5, 3, requires_grad=True)
    variance, covariance = variance_covariance(x, torch.ones(5, dtype=torch.bool))
    (variance + covariance).backward()
    assert variance.item() == pytest.approx(0.99) and covariance == 0
    assert x.grad is not None and torch.isfinite(x.grad).all()
    for nothing in (torch.zeros(5, dtype=torch.bool), torch.arange(5) == 2):  # no row, one row
        variance, covariance = variance_covariance(x.detach(), nothing)
        assert float(variance) == pytest.approx(0.99) and covariance == 0


def redundancy(a, b, weight):
    """Barlow Twins, entry by entry."""
    rows, outputs = a.shape

    def standard(x):
        columns = []
        for i in range(outputs):
            column = x[:, i].tolist()
            mean = sum(column) / rows
            variance = sum((v - mean) ** 2 for v in column) / rows
            columns.append([(v - mean) / math.sqrt(variance + 1e-5) for v in column])
        return columns

    a, b, total = standard(a), standard(b), 0.0
    for i in range(outputs):
        for j in range(outputs):
            c = sum(x * y for x, y in zip(a[i], b[j])) / rows
            total += (1 - c) ** 2 if i == j else weight * c**2
    return total


@pytest.mark.parametrize(("rows", "outputs"), [(4, 9), (9, 4), (5, 5)])
def test_barlow_twins_entry_by_entry(rows, outputs):
    a, b = torch.randn(2, rows, outputs, dtype=torch.float64) * 3 + 1
    assert float(barlow_twins(a, b, 0.3)) == pytest.approx(redundancy(a, b, 0.3), rel=1e-12)
    assert float(barlow_twins(a, b, 0.0)) == pytest.approx(redundancy(a, b, 0.0), rel=1e-12)
    shifted = barlow_twins(a + 5, b - 2, 0.3)
    assert float(shifted) == pytest.approx(float(barlow_twins(a, b, 0.3)), rel=1e-9)


def test_barlow_twins_is_small_for_equal_outputs_that_do_not_correlate():
    a = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert barlow_twins(a, a, 1.0) < 1e-6
    twice = a[:, [0, 0]]
    assert float(barlow_twins(twice, twice, 0.5)) == pytest.approx(1.0, abs=1e-3)  # two entries of 1


@pytest.mark.parametrize("rows", [6, 40])
def test_the_gradient_of_barlow_twins_is_that_of_either_way(rows):
    a, b = torch.randn(2, rows, 12, dtype=torch.float64, requires_grad=True).unbind()

    def plain(a, b):
        a, b = ((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt() for x in (a, b))
        c = a.T @ b / rows
        return (1 - c.diagonal()).square().sum() + 0.1 * (c.square().sum() - c.diagonal().square().sum())

    expected = torch.autograd.grad(plain(a, b), (a, b))
    torch.testing.assert_close(torch.autograd.grad(barlow_twins(a, b, 0.1), (a, b)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rows", [6, 40])
def test_barlow_twins_is_exact_under_autocast(rows):
    a, b = torch.randn(2, rows, 12)
    with torch.autocast("cpu", torch.bfloat16):
        found = barlow_twins(a, b, 0.1)
    assert torch.equal(found, barlow_twins(a, b, 0.1))


def test_koleo_contrasts_and_vicregs_terms_are_exact_under_autocast():
    rows = torch.randn(30, 12)
    unit = torch.nn.functional.normalize(rows, dim=1)
    calls = (
        lambda: contrasts(unit, unit.flip(0), unit.flip(1), 0.07),
        lambda: torch.stack(variance_covariance(rows, torch.ones(30, dtype=torch.bool))),
        lambda: koleo(rows),
    )
    for call in calls:
        with torch.autocast("cpu", torch.bfloat16):
            found = call()
        assert torch.equal(found, call())
