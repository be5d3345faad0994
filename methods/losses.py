"""Losses and statistics that several methods share. What a loss is of the whole batch, it is over all ranks (see
methods/distributed.py)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from methods.distributed import denominator, gather, rank, total
from methods.precision import full, without_autocast


def patch_normalised(x: Float[Tensor, "*token value"]) -> Float[Tensor, "*token value"]:
    """(x - mean) / sqrt(var + 1e-6) over the values of each patch, var unbiased (MAMP, `norm_skes_loss`)."""
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()


def masked_mean(x: Float[Tensor, "*token"], where: Bool[Tensor, "*token"]) -> Float[Tensor, ""]:
    """Mean of x where `where` is True; 0, with zero gradient, where it is nowhere True."""
    return (x * where).sum() / denominator(where.sum())


def koleo(x: Float[Tensor, "row width"]) -> Float[Tensor, ""]:
    """Kozachenko-Leonenko regulariser (Sablayrolles et al., 2019; DINOv2): -mean log distance to the nearest other row,
    rows L2-normalised, distance + 1e-6."""
    x = F.normalize(full(x), dim=-1, eps=1e-8)
    every = gather(x)
    with torch.no_grad(), without_autocast(x):  # in bfloat16 the nearest of near rows would be any of them
        cosines = x @ every.T
        cosines.diagonal(rank() * len(x)).fill_(-2)  # itself; ranks have equally many rows
        near = cosines.argmax(1)
    distance = (x - every.index_select(0, near)).square().sum(-1).clamp(min=1e-16).sqrt()
    return -(distance + 1e-6).log().mean()


def barlow_twins(a: Float[Tensor, "row output"], b: Float[Tensor, "row output"], weight: float) -> Float[Tensor, ""]:
    """Redundancy reduction (Barlow Twins, Zbontar et al., ICML 2021): sum_i (1 - C_ii)^2 + weight sum_{i != j} C_ij^2.

    C = a^T b / rows is the cross-correlation of outputs standardised over the rows: batch normalisation without affine,
    biased variance + 1e-5. Where there are fewer rows than outputs, the sum of all C_ij^2 comes from the rows' Gram
    matrices, tr(a a^T b b^T) / rows^2: the same number, without the outputs x outputs matrix (6,144^2 in PSTL). By
    Cauchy-Schwarz it is at least (sum_i |C_ii|)^2 / rows, outputs / rows times the diagonal's squares if all C_ii are
    equal: little cancels where they are alike.
    """
    a, b = (F.batch_norm(gather(full(x)), None, None, training=True) for x in (a, b))
    rows, outputs = a.shape
    with without_autocast(a):  # bfloat16 products would lose the small entries
        diagonal = (a * b).sum(0) / rows
        if rows < outputs:
            everything = ((a @ a.T) * (b @ b.T)).sum() / rows**2
            off = everything - diagonal.square().sum()
        else:
            off = (a.T @ b / rows).fill_diagonal_(0).square().sum()
    return (1 - diagonal).square().sum() + weight * off


def spread(x: Float[Tensor, "row width"]) -> float:
    """Mean over channels of the standard deviation of L2-normalised rows, times sqrt(width): 1 where rows point
    anywhere, 0 where the features have collapsed."""
    x = F.normalize(x.float(), dim=-1)
    return float(x.std(0, unbiased=False).mean() * x.shape[1] ** 0.5)


def effective_rank(x: Float[Tensor, "row width"]) -> float:
    """exp of the entropy of the normalised singular values of centred rows (Roy and Vetterli, 2007): 1 to width."""
    s = torch.linalg.svdvals((x - x.mean(0)).float())
    p = s / s.sum().clamp(min=1e-12)
    return float(torch.special.entr(p).sum().exp())


def variance_covariance(
    x: Float[Tensor, "row width"], where: Bool[Tensor, " row"], gamma: float = 1.0
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """VICReg's two terms against collapse (Bardes et al., ICLR 2022, eqs. 1-4), over the rows where `where` is True.

    Returns:
        (variance, covariance): mean over channels of max(0, gamma - sqrt(Var + 1e-4)); sum of the squared off-diagonal
        entries of the covariance matrix over the width. Both divide by rows - 1; no row gives (gamma - 0.01, 0).
    """
    x = full(x)
    weight = where.to(x.dtype)[:, None]
    count = total(weight.sum())
    x = (x - total((x * weight).sum(0)) / count.clamp(min=1)) * weight
    rows = (count - 1).clamp(min=1)
    std = (total(x.square().sum(0)) / rows + 1e-4).sqrt()
    with without_autocast(x):
        matrix = total(x.T @ x) / rows
    apart = matrix - torch.diag(matrix.diagonal())
    return F.relu(gamma - std).mean(), apart.square().sum() / x.shape[1]


def contrasts(
    queries: Float[Tensor, "row width"],
    keys: Float[Tensor, "row width"],
    negatives: Float[Tensor, "negative width"],
    temperature: float,
) -> Float[Tensor, "row choice"]:
    """Logits of unit vectors: each query with its own key first, then with every negative, divided by temperature.

    In full precision: at T = 0.07 bfloat16 would leave an error of 0.03 in the negatives' logits and none in the key's.
    """
    queries, keys, negatives = full(queries), full(keys), full(negatives)
    own = (queries * keys).sum(1, keepdim=True)
    with without_autocast(queries):
        return torch.cat([own, queries @ negatives.T], 1) / temperature


def info_nce(
    logits: Float[Tensor, "row choice"], positive: Bool[Tensor, "row choice"] | None = None
) -> Float[Tensor, ""]:
    """InfoNCE (van den Oord et al., 2018; MoCo): -log softmax at choice 0, mean over rows. Where several choices are
    `positive`, the mean of theirs (AimCLR)."""
    logs = logits.log_softmax(1)
    if positive is None:
        return -logs[:, 0].mean()
    return -((logs * positive).sum(1) / positive.sum(1)).mean()


def soft_cross_entropy(logits: Float[Tensor, "row choice"], targets: Float[Tensor, "row choice"]) -> Float[Tensor, ""]:
    """-sum_c targets_c log softmax(logits)_c, mean over rows."""
    return -(targets * logits.log_softmax(1)).sum(1).mean()
