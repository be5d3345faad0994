"""Two ranks train as one process does with the same batch, which is split over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.distributed import BatchNorm, denominator, everywhere, gather, rank, total, world
from methods.hacm import cross_contrast
from methods.losses import barlow_twins, koleo, masked_mean, variance_covariance
from methods.prototypes import prototype_cross_entropy, sinkhorn
from tests.methods.two_ranks import SHORT, Case, compared, in_two_ranks, stopped_and_continued

METHODS = ("slim", "mamp", "skeletonclr", "pstl")
ROWS = {"equal": [4, 4], "unequal": [3, 5]}


def rows(width: int = 6, seed: int = 0) -> Tensor:
    """Eight of them, float64."""
    return torch.randn(8, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1)


def prototypes(x: Tensor) -> Tensor:
    """Prototype cross-entropy, some rows of which count more in the shares than others."""
    student, teacher = unit(rows(6, 1)), unit(rows(6, 2))
    weights = (x[:, 0] > 0).double() + 1
    mean = weights / denominator(weights.sum())
    targets = unit(x.detach() * torch.arange(1, 7))
    return prototype_cross_entropy(unit(x), student, targets, teacher, weights=mean, teacher_weights=weights, chunk=16)


def normalised(x: Tensor) -> Tensor:
    """A loss behind a batch norm of (row, channel, time)."""
    norm = BatchNorm(3).double().train()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, -1.0])), norm.bias.fill_(0.1)
    y = norm(x.unflatten(1, (3, 2))).pow(3)
    found = y.sum() / denominator(torch.tensor(len(x)))
    return found + 0 * (norm.running_mean.sum() + norm.running_var.sum())


def contrast(x: Tensor) -> Tensor:
    tokens = x.unflatten(1, (3, 2))
    return cross_contrast(tokens, torch.tensor([True, False, True]).expand(len(x), -1))


LOSSES: dict[str, tuple[str, Callable[[Tensor], Tensor], int]] = {
    "koleo": ("equal", koleo, 6),
    "barlow twins, more rows": ("unequal", lambda x: barlow_twins(x, x @ rows(6)[:6], 0.3), 6),
    "barlow twins, more outputs": ("unequal", lambda x: barlow_twins(x, x.square() + x.flip(1), 0.3), 10),
    "variance, covariance": ("unequal", lambda x: sum(variance_covariance(x, x[:, 1] < 0.8, 1.5)), 6),
    "masked mean": ("unequal", lambda x: masked_mean(x.square(), x > 0), 6),
    "prototypes": ("unequal", prototypes, 6),
    "batch norm": ("unequal", normalised, 6),
    "cross-contrast": ("unequal", contrast, 6),
}


def with_gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = loss(x)
    value.backward()
    assert x.grad is not None
    return value.detach(), x.grad


def statistics(own: Tensor) -> dict[str, Tensor]:
    """A batch norm's running statistics after two batches."""
    norm = BatchNorm(6).double().train()
    norm(own), norm(2 * own + 1)
    return norm.state_dict()


def task(given: dict[str, Any], number: int, join: Callable[[], None]) -> dict[str, Any]:
    """All that is looked at, in one start of two processes."""
    found: dict[str, Any] = {"trained": compared(given["cases"], number, join)}
    assert (rank(), world()) == (number, 2)
    found["continued"] = {
        name: stopped_and_continued(given["cases"][name], Path(given["folder"], name)) for name in given["continued"]
    }
    for name, (split, loss, width) in LOSSES.items():
        found[name] = with_gradient(loss, rows(width).split(ROWS[split])[number])
    found["statistics"] = statistics(rows().split(ROWS["unequal"])[number])
    found["gathered"] = gather(rows().split(ROWS["unequal"])[number]), everywhere(number + 1, rows())
    return found


@pytest.fixture(scope="module")
def cases(parts, bodies) -> dict[str, Case]:
    clips = bodies(clips=12)
    return {
        f"{name} {bits}": Case(parts(name, backbone={"dropout": 0.0}), clips, double=bits == "float64")
        for name in METHODS
        for bits in ("float32", "float64")
    }


@pytest.fixture(scope="module")
def ranks(cases, tmp_path_factory) -> list[dict[str, Any]]:
    """What each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    again = ["slim float32", "skeletonclr float32"]
    for name in again:
        (folder / name).mkdir()
    return in_two_ranks(task, {"cases": cases, "continued": again, "folder": str(folder)}, folder)


@pytest.mark.parametrize(("bits", "limit"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_train_as_one_with_the_same_batch(name, bits, limit, ranks):
    first, second = (found["trained"][f"{name} {bits}"] for found in ranks)
    assert first.weight < limit and first.metric < limit
    assert first.digest == second.digest, "ranks must not drift apart"


@pytest.mark.parametrize("name", ["slim float32", "skeletonclr float32"])
def test_a_run_of_two_ranks_that_was_stopped_ends_as_an_undisturbed_one(name, ranks):
    for found in ranks:
        assert found["continued"][name] == found["trained"][name].digest


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_over_ranks_is_that_of_the_whole_batch(name, ranks):
    _, loss, width = LOSSES[name]
    value, gradient = with_gradient(loss, rows(width))
    assert torch.stack([found[name][0] for found in ranks]).mean() == pytest.approx(float(value), rel=1e-12)
    own = torch.cat([found[name][1] for found in ranks]) / len(ranks)  # what is minimised is the mean over ranks
    torch.testing.assert_close(own, gradient, rtol=1e-9, atol=1e-12)
    assert gradient.abs().max() > 1e-3


def test_prototypes_over_ranks_agree_with_the_plain_sinkhorn(ranks):
    x = rows()
    student, teacher = unit(rows(6, 1)), unit(rows(6, 2))
    weights = (x[:, 0] > 0).double() + 1
    q = sinkhorn(unit(x * torch.arange(1, 7)) @ teacher.T, 0.07, 3, weights)
    losses = -(q * (unit(x) @ student.T / 0.1).log_softmax(1)).sum(1)
    expected = float((weights * losses).sum() / weights.sum())
    assert sum(float(found["prototypes"][0]) for found in ranks) / 2 == pytest.approx(expected, rel=1e-12)


def test_batch_norm_keeps_the_statistics_of_the_whole_batch(ranks):
    norm = torch.nn.BatchNorm1d(6).double().train()
    norm(rows()), norm(2 * rows() + 1)
    for found in ranks:
        torch.testing.assert_close(dict(found["statistics"]), dict(norm.state_dict()), rtol=1e-12, atol=1e-12)


def test_gathered_rows_stand_in_the_order_of_ranks(ranks):
    for found in ranks:
        assert torch.equal(found["gathered"][0], rows()) and found["gathered"][1] == 3


def test_alone_nothing_is_touched():
    x = rows()
    assert (rank(), world()) == (0, 1)
    assert total(x) is x and gather(x) is x and everywhere(3, x) == 3
    y = rows().requires_grad_()
    assert torch.equal(BatchNorm(6).double()(y), torch.nn.BatchNorm1d(6).double()(y))
    assert SHORT.batch % 2 == 0
