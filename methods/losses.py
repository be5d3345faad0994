"""Losses and statistics that several methods share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def patch_normalised(x: Float[Tensor, "*token value"]) -> Float[Tensor, "*token value"]:
    """(x - mean) / sqrt(var + 1e-6) over the values of each patch, var unbiased (MAMP, `norm_skes_loss`)."""
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()


def masked_mean(x: Float[Tensor, "*token"], where: Bool[Tensor, "*token"]) -> Float[Tensor, ""]:
    """Mean of x where `where` is True; 0, with zero gradient, where it is nowhere True."""
    return (x * where).sum() / where.sum().clamp(min=1)


def koleo(x: Float[Tensor, "row width"]) -> Float[Tensor, ""]:
    """Kozachenko-Leonenko regulariser (Sablayrolles et al., 2019; DINOv2): -mean log distance to the nearest other row,
    rows L2-normalised, distance + 1e-6."""
    x = F.normalize(x.float() if x.dtype != torch.float64 else x, dim=-1, eps=1e-8)
    with torch.no_grad():
        near = (x @ x.T).fill_diagonal_(-2).argmax(1)
    distance = (x - x.index_select(0, near)).square().sum(-1).clamp(min=1e-16).sqrt()
    return -(distance + 1e-6).log().mean()


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
    x = x.float() if x.dtype != torch.float64 else x
    weight = where.to(x.dtype)[:, None]
    count = weight.sum()
    x = (x - (x * weight).sum(0) / count.clamp(min=1)) * weight
    rows = (count - 1).clamp(min=1)
    std = (x.square().sum(0) / rows + 1e-4).sqrt()
    matrix = x.T @ x / rows
    apart = matrix - torch.diag(matrix.diagonal())
    return F.relu(gamma - std).mean(), apart.square().sum() / x.shape[1]
