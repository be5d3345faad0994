"""Encoding the visible 10 % by gather against encoding all tokens (MAMP's encoder, forward and backward)."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.backbone import Transformer
from methods.encoder import EncoderConfig
from skeletons.topology import KINECT_V2
from tests.benchmarks.alternating import compare, seconds


def run(quick: bool = False) -> list[dict]:
    """Rows for 750 tokens, 74 of them visible."""
    torch.set_num_threads(1)
    depth, sequences = (2, 2) if quick else (8, 4)
    config = EncoderConfig(depth=depth, patch=4, position="learned", class_token=False, registers=0)
    encoder = Transformer(config, KINECT_V2, 120)
    joints = torch.randn(sequences, 120, 25, 3)
    visible = torch.rand(sequences, 750).argsort(1)[:, :74].sort(1).values

    def step(shown: Tensor | None) -> None:
        encoder(joints, visible=shown).patches.square().mean().backward()

    times = seconds({"visible tokens": lambda: step(visible), "all tokens": lambda: step(None)}, 2 if quick else 5)
    return compare(f"encoder step, {depth} layers, {sequences} sequences", times, "visible tokens", "all tokens")
