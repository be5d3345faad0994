"""The masked autoencoders' decoder against plain formulas."""

from __future__ import annotations

import pytest
import torch

from methods.decoder import Decoder, DecoderConfig
from skeletons.errors import BadInput

SMALL = DecoderConfig(width=12, depth=2, heads=3)


def test_equals_the_plain_formulas(reference):
    decoder = Decoder(SMALL, 6, (3, 4), 5).double()
    reference.scramble(decoder)
    visible = torch.stack([torch.randperm(12)[:4] for _ in range(3)])
    tokens = torch.randn(3, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        got, expected = decoder(tokens, visible), reference.decode(decoder, tokens, visible)
    assert got.shape == (3, 12, 5)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_the_order_of_visible_tokens_does_not_matter():
    decoder, order = Decoder(SMALL, 6, (3, 4), 5).double(), torch.tensor([3, 0, 2, 1])
    visible, tokens = torch.tensor([[1, 5, 6, 11]]), torch.randn(1, 4, 6, dtype=torch.float64)
    shuffled = decoder(tokens[:, order], visible[:, order])
    torch.testing.assert_close(shuffled, decoder(tokens, visible), rtol=0, atol=1e-12)


def test_a_width_that_its_heads_do_not_divide_is_refused():
    with pytest.raises(BadInput, match="must be divisible by"):
        Decoder(DecoderConfig(width=10, depth=1, heads=3), 6, (3, 4), 5)
