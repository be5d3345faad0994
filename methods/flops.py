"""FLOPs of the parts that methods are made of: by formula, and counted on the meta device. A test holds them equal.

FLOPs = 2 x MAC, of matrix products and attention only; norms, GELU, softmax, biases and other element-wise operations
are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from methods.decoder import DecoderConfig
from methods.encoder import EncoderConfig
from methods.heads import HeadConfig


def block_flops(tokens: int, width: int, hidden: int, gated: bool = False) -> int:
    """FLOPs of a transformer block, by formula: queries, keys, values and output; scores and sums of values; MLP."""
    return 2 * tokens * width * (4 * width + 2 * tokens + (3 if gated else 2) * hidden)


def encoder_flops(config: EncoderConfig, time_patches: int, joints: int, visible: int | None = None) -> int:
    """FLOPs of the encoder's forward pass over one person, by formula.

    Args:
        time_patches, joints: size of the grid of tokens.
        visible: tokens that are embedded and encoded; None means all of them.
    """
    patches = time_patches * joints if visible is None else visible
    tokens = patches + config.registers + config.class_token
    block = block_flops(tokens, config.width, config.hidden_width(), config.mlp == "swiglu")
    return 2 * patches * 3 * config.patch * config.width + config.depth * block


def decoder_flops(config: DecoderConfig, encoder_width: int, tokens: int, visible: int, values: int) -> int:
    """FLOPs of the decoder's forward pass over one person, by formula.

    Args:
        tokens, visible: of the grid, and those that the encoder saw.
        values: numbers predicted for each token.
    """
    blocks = config.depth * block_flops(tokens, config.width, 4 * config.width)
    return 2 * visible * encoder_width * config.width + blocks + 2 * tokens * config.width * values


def head_flops(config: HeadConfig, width: int, rows: int) -> int:
    """FLOPs of a prototype head's linear layers for so many tokens, by formula."""
    widths = [width, *[config.hidden] * (config.layers - 1), config.bottleneck]
    return 2 * rows * sum(a * b for a, b in pairwise(widths))


def prototype_flops(config: HeadConfig, student: int, teacher: int) -> int:
    """FLOPs of a step's products with the prototypes, by formula: the logits of teacher and student rows once each,
    and the student's gradients, by rows and by prototypes."""
    return 2 * (teacher + 3 * student) * config.prototypes * config.bottleneck


def sinkhorn_flops(config: HeadConfig, teacher: int, iterations: int) -> int:
    """FLOPs of Sinkhorn's weighted sums, by formula: over rows in each iteration, over prototypes between two."""
    return 2 * (2 * iterations - 1) * teacher * config.prototypes


def _vector_flops(*shapes: Any, out_shape: Any = None, **options: Any) -> int:
    """2 x MAC of mv(matrix, vector) and addmv(sum, matrix, vector)."""
    rows, columns = shapes[-2]
    return 2 * rows * columns


_aten = torch.ops.aten
VECTOR = {_aten.mv: _vector_flops, _aten.addmv: _vector_flops, _aten.addmv_: _vector_flops}


def counter() -> FlopCounterMode:
    """Counts FLOPs on the meta device; on the CPU it would miss scaled_dot_product_attention (pytorch issue 195460)."""
    return FlopCounterMode(display=False, custom_mapping=VECTOR)


def counted(call: Callable[[], object]) -> int:
    """FLOPs of a call, whose tensors and modules lie on the meta device."""
    with counter() as count:
        call()
    return count.get_total_flops()
