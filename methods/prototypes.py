"""The teacher's Sinkhorn assignment of tokens to prototypes, and the cross-entropy between networks.

A head (methods/heads.py) compares a token with K unit prototypes. The teacher's logits are assigned to the
prototypes by Sinkhorn-Knopp, so that every prototype gets the same share of the batch, and the student is
trained to predict that assignment: for patch tokens this is masked feature modelling, for class tokens
global-local consistency (SLiM, arXiv 2603.10648, section 3.2 and appendix A; there from DINO, arXiv
2104.14294, iBOT, arXiv 2111.07832, and DINOv2, arXiv 2304.07193).

With K = 65,536 the logits dominate the memory of a training step, so `prototype_cross_entropy` never holds
them whole. Two facts make that cheap:

* Sinkhorn only rescales: q_mk = a_m E_mk b_k with E = exp(logits / T). The K numbers b are all there is to
  keep between iterations, and a_m follows from b and row m alone.
* Unit vectors bound the logits by 1 / T, so neither E nor the student's softmax needs a maximum subtracted,
  and sums over prototypes can be taken in one pass (float32 holds exp(1 / T) down to T = 0.012).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from methods.distributed import total
from methods.precision import autocast_device, without_autocast

CHUNK = 2**24
"""Elements of a chunk buffer (64 MiB in float32); on the CPU, at SLiM's sizes, twice gains about 10 %."""


def sinkhorn(
    logits: Float[Tensor, "row prototype"],
    temperature: float,
    iterations: int = 3,
    weights: Float[Tensor, " row"] | None = None,
) -> Float[Tensor, "row prototype"]:
    """Soft assignment of rows to prototypes: rows sum to 1, prototypes get about equal shares of the rows.

    The plain formula, holding the full matrix (SwAV, arXiv 2006.09882, section 3.1, as DINOv2 runs it): the
    exponentials, divided by their total, are scaled in turn to 1 / K for a prototype and 1 / B for a row.
    `prototype_cross_entropy` computes the same without the matrix.

    Args:
        logits: cosines; exp(logits / temperature) must not overflow.
        temperature: teacher temperature T.
        iterations: rounds of the two scalings, at least 1.
        weights: how much each row counts in the prototypes' shares, >= 0 and not all 0: a row of weight 2
            counts like the row twice, a row of weight 0 is assigned but has no influence. None: 1 each.
    """
    _check_iterations(iterations)
    q = torch.exp(logits / temperature)
    weight = torch.ones_like(q[:, :1]) if weights is None else weights.to(q)[:, None]
    rows, prototypes = weight.sum(), logits.shape[1]
    q = q / (q * weight).sum()
    for _ in range(iterations):
        q = q / (prototypes * (q * weight).sum(0))
        q = q / (rows * q.sum(1, keepdim=True))
    return q * rows


def prototype_cross_entropy(
    student: Float[Tensor, "*view row bottleneck"],
    student_prototypes: Float[Tensor, "prototype bottleneck"],
    teacher: Float[Tensor, "row bottleneck"],
    teacher_prototypes: Float[Tensor, "prototype bottleneck"],
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.07,
    weights: Float[Tensor, "*view row"] | None = None,
    teacher_weights: Float[Tensor, " row"] | None = None,
    iterations: int = 3,
    chunk: int | None = None,
    reduce: Callable[[Tensor], Tensor] = total,
) -> Float[Tensor, ""]:
    """Cross-entropy of the student's softmax against the teacher's Sinkhorn assignment, in chunks of rows.

        loss = sum_vr w_vr * (-sum_k q_rk log p_vrk)
        q = sinkhorn(teacher @ teacher_prototypes.T, teacher_temperature, iterations, teacher_weights)
        p_v = softmax(student[v] @ student_prototypes.T / student_temperature)

    One teacher row is the target of the same row of every student view, and is computed once for all of them.
    The loss is a scalar, so its gradients are computed in the same pass (and only where needed) and scaled in
    backward. A chunk costs two buffers of at most max(chunk, K) numbers, whatever the number of rows; the
    price is that the teacher's logits are computed once for each iteration and once for the loss. When all
    rows fit one chunk nothing is recomputed; so on the meta device a huge `chunk` counts the algorithm's own
    FLOPs.

    Args:
        student: unit vectors, (view, row, d), or (row, d) for a single view. Gets gradients.
        student_prototypes: unit vectors. Gets gradients.
        teacher, teacher_prototypes: unit vectors. No gradients.
        student_temperature, teacher_temperature: at least 0.012 in float32, or exp(1 / T) overflows.
        weights: of each student row, shaped as the student's rows; no gradient. None: the mean over all rows.
        teacher_weights: of each teacher row in the Sinkhorn shares (`sinkhorn`). None: 1 each.
        iterations: of Sinkhorn-Knopp, at least 1.
        chunk: elements of a chunk buffer; None means `CHUNK`.
        reduce: sums a tensor over ranks; it is handed the K column sums (float32 or float64) once an
            iteration, on every rank, with or without rows. The row count cancels in q and needs no reduction.

    Matrix products run in bfloat16 under bfloat16 autocast, else in the inputs' type; exponentials, sums and
    gradients are held in float32 at least. Without rows, or with all weights 0, loss and gradients are 0.

    Raises:
        ValueError: shapes that do not fit, or a temperature, chunk or number of iterations below its least.
    """
    _check_iterations(iterations)
    views = student if student.ndim == 3 else student[None]
    if views.ndim != 3 or views.shape[1:] != teacher.shape:
        raise ValueError(
            f"student must be (view, row, d) or (row, d) for teacher rows {tuple(teacher.shape)}, "
            f"got {tuple(student.shape)}"
        )
    if student_prototypes.shape != teacher_prototypes.shape or teacher_prototypes.shape[1:] != teacher.shape[1:]:
        raise ValueError(
            f"prototypes must be (K, {teacher.shape[-1]}) for both, got student's "
            f"{tuple(student_prototypes.shape)} and teacher's {tuple(teacher_prototypes.shape)}"
        )
    if weights is not None and weights.shape != student.shape[:-1]:
        raise ValueError(f"weights must be {tuple(student.shape[:-1])}, got {tuple(weights.shape)}")
    if teacher_weights is not None and teacher_weights.shape != teacher.shape[:1]:
        raise ValueError(f"teacher_weights must be {tuple(teacher.shape[:1])}, got {tuple(teacher_weights.shape)}")
    chunk = CHUNK if chunk is None else chunk
    if min(student_temperature, teacher_temperature) <= 0 or chunk < 1:
        raise ValueError(
            f"temperatures and chunk must be positive, got {student_temperature}, {teacher_temperature} and {chunk}"
        )

    needs = [torch.is_grad_enabled() and x.requires_grad for x in (student, student_prototypes)]
    product_type = _product_type(student, student_prototypes)
    sum_type = torch.promote_types(product_type, torch.float32)
    if weights is None:
        count = max(1, views.shape[0] * views.shape[1])
        weights = views.new_full(views.shape[:2], 1 / count, dtype=sum_type)
    if teacher_weights is None:
        teacher_weights = views.new_ones(len(teacher), dtype=sum_type)
    with torch.no_grad(), without_autocast(student):
        assignment = _Assignment(
            teacher.to(product_type),
            teacher_prototypes.to(product_type),
            teacher_weights.to(sum_type),
            teacher_temperature,
            chunk,
        )
        assignment.balance(iterations, reduce)
        loss, *gradients = _loss_and_gradients(
            assignment,
            views.to(product_type),
            student_prototypes.to(product_type),
            weights.reshape(views.shape[:2]).to(sum_type),
            student_temperature,
            *needs,
        )
    return _WithGradients.apply(views, student_prototypes, loss, *gradients)


class _WithGradients(torch.autograd.Function):
    """A scalar loss whose gradients are already known: backward only scales them."""

    @staticmethod
    def forward(ctx, student, prototypes, loss, student_gradient, prototype_gradient):
        ctx.save_for_backward(student_gradient, prototype_gradient)
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, scale):
        student, prototypes = (None if known is None else known * scale for known in ctx.saved_tensors)
        return student, prototypes, None, None, None


class _Assignment:
    """The teacher's assignment of rows to prototypes, made again for one chunk of rows at a time.

    A chunk is a matrix (prototype, row): a product in that order is a quarter faster on the CPU than its
    transpose, and chunks of all lengths are contiguous in one buffer.

    Args:
        rows: (row, d).
        prototypes: (K, d).
        weights: (row,) of each row in the prototypes' shares; all sums have their type.
        temperature: T, that divides the logits.
        chunk: elements of a chunk.
    """

    def __init__(self, rows: Tensor, prototypes: Tensor, weights: Tensor, temperature: float, chunk: int) -> None:
        self.rows, self.prototypes, self.weights, self.temperature = rows, prototypes, weights, temperature
        self.scale: Tensor | None = None  # b of q = a E b, up to a constant that cancels
        count = -(-len(rows) // max(1, chunk // max(1, len(prototypes))))
        self.chunks = [slice(len(rows) * i // count, len(rows) * (i + 1) // count) for i in range(count)]
        self.buffer = self.new_buffer()
        self.filled = False

    def new_buffer(self) -> Tensor:
        longest = max((part.stop - part.start for part in self.chunks), default=0)
        return self.weights.new_empty(len(self.prototypes) * longest)

    def matrix(self, buffer: Tensor, part: slice) -> Float[Tensor, "prototype chunk"]:
        """The buffer's memory as a contiguous matrix for one chunk."""
        rows = part.stop - part.start
        return buffer[: len(self.prototypes) * rows].view(len(self.prototypes), rows)

    def exponentials(self, part: slice) -> Float[Tensor, "prototype chunk"]:
        """E = exp(logits / T) of a chunk, in the one buffer: a single chunk is computed once."""
        e = self.matrix(self.buffer, part)
        if not self.filled:
            _logits(self.prototypes, self.rows[part], self.temperature, out=e).exp_()
            self.filled = len(self.chunks) == 1
        return e

    def balance(self, iterations: int, reduce: Callable[[Tensor], Tensor]) -> None:
        """Sinkhorn-Knopp: each iteration scales the prototypes to equal shares, then the rows to 1.

        The rows' scaling a is left to the next pass over E, the last one to whoever uses the assignment.
        """
        for _ in range(iterations):
            shares = self.weights.new_zeros(len(self.prototypes))
            for part in self.chunks:
                e, weight = self.exponentials(part), self.weights[part]
                if self.scale is not None:
                    weight = weight / (e.T @ self.scale)
                shares.addmv_(e, weight)
            shares = reduce(shares)
            self.scale = torch.where(shares > 0, shares.reciprocal(), 1)  # all weights 0: plain softmax

    def masses(self, part: slice) -> tuple[Float[Tensor, "prototype chunk"], Float[Tensor, " chunk"]]:
        """E b of a chunk, in the buffer, and its sums over prototypes: their quotient is q."""
        assert self.scale is not None
        masses = self.exponentials(part).mul_(self.scale[:, None])
        return masses, masses.sum(0)


def _loss_and_gradients(
    assignment: _Assignment,
    student: Float[Tensor, "view row bottleneck"],
    prototypes: Float[Tensor, "prototype bottleneck"],
    weights: Float[Tensor, "view row"],
    temperature: float,
    student_needs: bool,
    prototypes_need: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, and its gradients by the student's rows and prototypes where they are needed."""
    loss = weights.new_zeros(())
    by_student = torch.zeros_like(student, dtype=weights.dtype) if student_needs else None
    by_prototypes = torch.zeros_like(prototypes, dtype=weights.dtype) if prototypes_need else None
    buffer = assignment.new_buffer()
    for part in assignment.chunks:
        q, mass = assignment.masses(part)  # mass * q, in truth
        for view, (rows, weight) in enumerate(zip(student[:, part], weights[:, part], strict=True)):
            logits = _logits(prototypes, rows, temperature, out=assignment.matrix(buffer, part))
            match = (q * logits).sum(0)
            p = logits.exp_()
            total = p.sum(0)
            loss += weight @ (total.log() - match / mass)
            if not (student_needs or prototypes_need):
                continue
            # By cosines the gradient is weight/T * (p / total - q / mass) = factor * (q - p * mass / total):
            # each row's factor is left to the small matrices on either side.
            factor = (weight / (mass * -temperature))[:, None]
            difference = torch.addcmul(q, p, mass / total, value=-1, out=p)
            if by_student is not None:
                _add_product(by_student[view, part], difference.T, prototypes)
                by_student[view, part] *= factor
            if by_prototypes is not None:
                _add_product(by_prototypes, difference, (factor * rows).to(rows.dtype))
    return loss, by_student, by_prototypes


def _logits(prototypes: Tensor, rows: Tensor, temperature: float, out: Tensor) -> Tensor:
    """Cosines (prototype, row) over the temperature into `out`, whose type may be the wider one."""
    if out.dtype == rows.dtype:
        return torch.addmm(out, prototypes, rows.T, beta=0, alpha=1 / temperature, out=out)
    return torch.mul(prototypes @ rows.T, 1 / temperature, out=out)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, the product in right's type (`addmm_` would escape torch's FLOP counter)."""
    if total.dtype == right.dtype:
        torch.addmm(total, left, right, out=total)
    else:
        total += left.to(right.dtype) @ right


def _product_type(student: Tensor, prototypes: Tensor) -> torch.dtype:
    """Type of the matrix products: autocast's bfloat16, not its float16: shares of 1 / K underflow."""
    own = torch.promote_types(student.dtype, prototypes.dtype)
    device = autocast_device(student)
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    if autocast and own == torch.float32:
        return torch.bfloat16
    return torch.float32 if own == torch.float16 else own


def _check_iterations(iterations: int) -> None:
    if iterations < 1:
        raise ValueError(f"Sinkhorn needs at least 1 iteration, got {iterations}")
