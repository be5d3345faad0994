"""The chunked prototype loss against the plain formula, and Sinkhorn against its description."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from methods import prototypes
from methods.heads import HeadConfig, PrototypeHead
from methods.prototypes import prototype_cross_entropy, sinkhorn

VIEWS, ROWS, WIDTH, K = 3, 13, 8, 20


@pytest.fixture(autouse=True, scope="module")
def warm_exp():
    """The first multi-threaded float64 exp of a process can be off by 3e-9."""
    torch.rand(2**20, dtype=torch.float64).exp_()


def unit(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).to(dtype)


def inputs(views: int | None = VIEWS, dtype: torch.dtype = torch.float64, rows: int = ROWS, k: int = K):
    shape = (rows, WIDTH) if views is None else (views, rows, WIDTH)
    student = unit(*shape, seed=1, dtype=dtype).requires_grad_()
    student_prototypes = unit(k, WIDTH, seed=2, dtype=dtype).requires_grad_()
    return (
        student,
        student_prototypes,
        unit(rows, WIDTH, seed=3, dtype=dtype),
        unit(k, WIDTH, seed=4, dtype=dtype),
    )


def plain(student, student_prototypes, teacher, teacher_prototypes, weights=None, teacher_weights=None):
    with torch.no_grad():
        q = sinkhorn(teacher @ teacher_prototypes.T, 0.07, 3, teacher_weights)
    entropy = -(q * F.log_softmax(student @ student_prototypes.T / 0.1, dim=-1)).sum(-1)
    return entropy.mean() if weights is None else (weights * entropy).sum()


def with_gradients(loss, *leaves):
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def assert_equal(got, expected, tolerance=1e-9):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance, check_dtype=False)


@pytest.mark.parametrize("chunk", [1, 5 * K + 7, 10**6])
@pytest.mark.parametrize("views", [None, VIEWS])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_plain_formula(views, chunk, weighted):
    student, protos, *teacher = inputs(views)
    weighting: dict[str, Any] = {}
    if weighted:
        generator = torch.Generator().manual_seed(5)
        w = torch.rand(student.shape[:-1], generator=generator, dtype=torch.float64)
        w[..., 4] = 0
        v = torch.rand(ROWS, generator=generator, dtype=torch.float64)
        v[2:4] = 0
        weighting = {"weights": w, "teacher_weights": v}
    got = prototype_cross_entropy(student, protos, *teacher, chunk=chunk, **weighting)
    expected = plain(student, protos, *teacher, **weighting)
    assert_equal(with_gradients(3 * got, student, protos), with_gradients(3 * expected, student, protos))


@pytest.mark.parametrize("chunk", [50, 10**6])
def test_gradients_through_the_head(chunk):
    torch.manual_seed(0)
    head, teacher = (PrototypeHead(6, HeadConfig(K, hidden=16, bottleneck=WIDTH)).double() for _ in range(2))
    for weight in head.mlp.parameters():
        torch.nn.init.normal_(weight)  # at std 0.02 and these widths, gradients would be tiny
    x = torch.randn(ROWS, 6, dtype=torch.float64)
    with torch.no_grad():
        target, target_prototypes = teacher(x), teacher.prototypes()
    got = prototype_cross_entropy(head(x), head.prototypes(), target, target_prototypes, chunk=chunk)
    got = with_gradients(got, *head.parameters())
    expected = with_gradients(plain(head(x), head.prototypes(), target, target_prototypes), *head.parameters())
    assert all(g.abs().max() > 1e-6 for g in got)
    assert_equal(got, expected)


def test_head_makes_unit_vectors_and_plain_logits():
    head = PrototypeHead(6, HeadConfig(K, hidden=16, bottleneck=WIDTH))
    x = torch.randn(2, 5, 6)
    assert_equal([head(x).norm(dim=-1), head.prototypes().norm(dim=-1)], [torch.ones(2, 5), torch.ones(K)], 1e-6)
    assert head.logits(x).shape == (2, 5, K)
    assert [type(m).__name__ for m in head.mlp] == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    assert all((p == 0).all() for p in head.mlp.parameters() if p.ndim == 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(x).dtype == torch.float32


@pytest.mark.parametrize(("hidden", "std"), [(2048, 0.02), (512, 0.04)])
def test_initial_weights_have_the_releases_scale_at_the_papers_width_and_grow_below_it(hidden, std):
    torch.manual_seed(0)
    head = PrototypeHead(64, HeadConfig(K, hidden=hidden, bottleneck=64))
    for weight in head.mlp.parameters():
        if weight.ndim > 1:
            assert weight.detach().std() == pytest.approx(std, rel=0.05)


def test_prototypes_start_as_pytorch_starts_a_linear_layer():
    """Their length sets how far a step of Adam turns them; DINO's last layer is a plain one."""
    torch.manual_seed(0)
    norms = PrototypeHead(64, HeadConfig(512, bottleneck=64)).weight.detach().norm(dim=1)
    assert float(norms.mean()) == pytest.approx((1 / 3) ** 0.5, rel=0.01) and float(norms.max()) < 1


def dinov2_sinkhorn(logits: np.ndarray, temperature: float, iterations: int) -> np.ndarray:
    """DINOv2's steps, one by one, on the (prototype, sample) matrix."""
    q = np.exp(logits / temperature).T
    k, b = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        for prototype in range(k):
            q[prototype] = q[prototype] / q[prototype].sum() / k
        for sample in range(b):
            q[:, sample] = q[:, sample] / q[:, sample].sum() / b
    return (q * b).T


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_follows_dinov2(iterations):
    logits = unit(ROWS, WIDTH, seed=1) @ unit(K, WIDTH, seed=2).T
    expected = torch.from_numpy(dinov2_sinkhorn(logits.numpy(), 0.07, iterations))
    assert_equal([sinkhorn(logits, 0.07, iterations)], [expected], 1e-12)


@pytest.mark.parametrize("iterations", [1, 2, 500])
def test_sinkhorn_marginals(iterations):
    q = sinkhorn(unit(ROWS, WIDTH, seed=1) @ unit(K, WIDTH, seed=2).T, 0.2, iterations)
    assert_equal([q.sum(1)], [torch.ones(ROWS)], 1e-12)
    if iterations == 500:
        assert_equal([q.sum(0)], [torch.full((K,), ROWS / K)], 1e-6)


def test_row_weights_count_as_copies():
    logits = unit(ROWS, WIDTH, seed=1) @ unit(K, WIDTH, seed=2).T
    counts = torch.arange(ROWS) % 3
    copies = torch.repeat_interleave(logits, counts, dim=0)
    weighted = torch.repeat_interleave(sinkhorn(logits, 0.07, 3, counts.double()), counts, dim=0)
    assert_equal([weighted], [sinkhorn(copies, 0.07, 3)], 1e-12)


@pytest.mark.parametrize("chunk", [4 * K, 10**6])
def test_rows_of_weight_0_are_as_if_dropped(chunk):
    student, protos, teacher, teacher_prototypes = inputs()
    keep = torch.arange(ROWS) % 4 > 0
    got = prototype_cross_entropy(
        student, protos, teacher, teacher_prototypes, chunk=chunk,
        weights=keep.double().expand(VIEWS, ROWS), teacher_weights=keep.double(),
    )  # fmt: skip
    expected = plain(student[:, keep], protos, teacher[keep], teacher_prototypes) * VIEWS * keep.sum()
    assert_equal(with_gradients(got, student, protos), with_gradients(expected, student, protos))


@pytest.mark.parametrize("case", ["no rows", "no views", "weights", "teacher weights", "both"])
def test_nothing_to_learn_is_0_and_finite(case):
    student, protos, teacher, teacher_prototypes = inputs(
        0 if case == "no views" else VIEWS, rows=0 if case == "no rows" else ROWS
    )
    zero = torch.zeros(student.shape[:2])
    got = with_gradients(
        prototype_cross_entropy(
            student, protos, teacher, teacher_prototypes, chunk=5 * K,
            weights=zero if case in ("weights", "both") else None,
            teacher_weights=zero[0] if case in ("teacher weights", "both") else None,
        ), student, protos,
    )  # fmt: skip
    assert all(torch.isfinite(x).all() for x in got)
    if case != "teacher weights":  # its rows still have targets, they only have no say in the shares
        assert all((x == 0).all() for x in got)


def test_gradients_only_where_asked(monkeypatch):
    student, protos, teacher, teacher_prototypes = inputs()
    teacher.requires_grad_()
    teacher_prototypes.requires_grad_()
    known = []
    inner = prototypes._loss_and_gradients

    def note(*args):
        known.append(inner(*args))
        return known[-1]

    monkeypatch.setattr(prototypes, "_loss_and_gradients", note)
    loss = prototype_cross_entropy(student, protos, teacher, teacher_prototypes)
    loss.backward()
    assert teacher.grad is None and teacher_prototypes.grad is None
    with torch.no_grad():
        same = prototype_cross_entropy(student, protos, teacher, teacher_prototypes)
    assert not same.requires_grad and same == loss
    assert known[-1][1:] == (None, None)
    prototype_cross_entropy(student.detach(), protos, teacher, teacher_prototypes).backward()
    assert known[-1][1] is None and known[-1][2] is not None
    prototype_cross_entropy(student, protos.detach(), teacher, teacher_prototypes).backward()
    assert known[-1][1] is not None and known[-1][2] is None


@pytest.mark.parametrize("bfloat16", [False, True])
def test_float32_and_bfloat16_autocast(bfloat16):
    exact_inputs = inputs()
    exact = with_gradients(plain(*exact_inputs), *exact_inputs[:2])
    student, protos, *teacher = inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        loss = prototype_cross_entropy(student, protos, *teacher, chunk=5 * K)
    for got, expected in zip(with_gradients(loss, student, protos), exact, strict=True):
        assert got.dtype == torch.float32
        assert (got - expected).norm() <= (0.05 if bfloat16 else 1e-5) * expected.norm()


def test_reduce_joins_two_halves():
    """Ranks that hold half of the rows each, and sum their column sums, get the whole batch's assignment."""
    student, protos, teacher, teacher_prototypes = inputs()
    whole: list[torch.Tensor] = []

    def note(sums):
        whole.append(sums)
        return sums

    prototype_cross_entropy(student, protos, teacher, teacher_prototypes, reduce=note)
    weights = torch.full((VIEWS, ROWS), 1 / (VIEWS * ROWS), dtype=torch.float64)
    got = torch.zeros((), dtype=torch.float64)
    for half in (slice(0, 5), slice(5, ROWS)):
        got = got + prototype_cross_entropy(
            student[:, half], protos, teacher[half], teacher_prototypes, chunk=2 * K,
            weights=weights[:, half], reduce=partial(lambda sums, own: next(sums), iter(whole)),
        )  # fmt: skip
    expected = plain(student, protos, teacher, teacher_prototypes)
    assert_equal(with_gradients(got, student, protos), with_gradients(expected, student, protos))


@pytest.mark.parametrize("views", [1, 3])
def test_flops_on_the_meta_device(views):
    rows, k, d = 512, 4096, 64

    def count(chunk: int) -> int:
        student = torch.empty(views, rows, d, device="meta", requires_grad=True)
        protos = torch.empty(k, d, device="meta", requires_grad=True)
        teacher = torch.empty(rows, d, device="meta"), torch.empty(k, d, device="meta")
        with FlopCounterMode(display=False) as counter:
            prototype_cross_entropy(student, protos, *teacher, chunk=chunk).backward()
        assert all(x.grad is not None and x.grad.shape == x.shape for x in (student, protos))
        return counter.get_total_flops()

    product = 2 * rows * k * d
    assert count(10**12) == (1 + 3 * views) * product  # teacher's logits; student's logits and two gradients
    assert count(k * 100) == (4 + 3 * views) * product  # three more times the teacher's logits


class Largest(TorchDispatchMode):
    """The largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))])
        return out


@pytest.mark.parametrize("rows", [60, 120])
def test_never_holds_rows_by_prototypes(rows):
    student, protos, *teacher = inputs(2, rows=rows, k=100)
    with Largest() as largest:
        prototype_cross_entropy(student, protos, *teacher, chunk=2000).backward()
    assert 0 < largest.numel <= 2000 < rows * 100


def test_bad_input_is_named(unchecked):
    student, protos, teacher, teacher_prototypes = inputs()
    with pytest.raises(ValueError, match="student must be"):
        prototype_cross_entropy(student[:, :-1], protos, teacher, teacher_prototypes)
    with pytest.raises(ValueError, match="prototypes must be"):
        prototype_cross_entropy(student, protos[:-1], teacher, teacher_prototypes)
    with pytest.raises(ValueError, match="weights must be"):
        prototype_cross_entropy(student, protos, teacher, teacher_prototypes, weights=torch.ones(ROWS))
    with pytest.raises(ValueError, match="at least 1 iteration"):
        prototype_cross_entropy(student, protos, teacher, teacher_prototypes, iterations=0)
    with pytest.raises(ValueError, match="at least 1 layer"):
        PrototypeHead(6, HeadConfig(K, layers=0))
