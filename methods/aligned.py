"""Two encoders as one (ASMa): side by side, or aligned by attention between their tokens.

`pair` concatenates the tokens of two encoders. `aligned_pair` first lets the tokens of each attend to all of the
other's (Vaswani et al., 2017, multi-head attention), with a residual and a norm:

    a' = LN(a + attention(queries a, keys and values b)),   b' = LN(b + attention(queries b, keys and values a))

ASMa (TMLR 2026) publishes that the alignment is learnable and, in secondary notes, that it is bidirectional multi-head
attention between f_A and f_B. ASSUMPTION: that it acts on tokens (attention to a single pooled vector would be a
softmax over one), its residual and norm, `backbone.heads` heads at the encoders' width, and that the two results are
concatenated. The norm has no gain and bias: a correlation, the pretraining objective, would teach it neither.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from methods.backbone import initialise
from methods.encoder import Encoder, EncoderConfig, Tokens, make_encoder
from skeletons.errors import BadInput
from skeletons.topology import Topology


class Across(nn.Module):
    """Multi-head attention of one encoder's tokens to another's, with residual and norm."""

    step_part = "heads"  # where its operations are counted, when it is not run inside the pair

    def __init__(self, width: int, heads: int, eps: float):
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps, elementwise_affine=False)

    def forward(
        self, x: Float[Tensor, "sequence token width"], other: Float[Tensor, "sequence their_token width"]
    ) -> Float[Tensor, "sequence token width"]:
        q = rearrange(self.query(x), "s n (h d) -> s h n d", h=self.heads)
        k, v = rearrange(self.key_value(other), "s n (two h d) -> two s h n d", two=2, h=self.heads)
        found = rearrange(F.scaled_dot_product_attention(q, k, v), "s h n d -> s n (h d)")
        return self.norm(x + self.out(found))


class Pair(Encoder):
    """Two encoders of kind `config.members`; a token is both of theirs, concatenated. It hides no tokens by mask token,
    and has no class token.

    Attributes:
        first, second: the two.
    """

    kind = "pair"

    def __init__(self, config: EncoderConfig, topology: Topology, frames: int, masked: bool = False):
        super().__init__(config, topology, frames, masked)
        if masked:
            raise BadInput(f"backbone.kind={self.kind} takes no mask tokens: choose a method that uses none")
        if config.members in ("pair", "aligned_pair"):
            raise BadInput(f"backbone.members={config.members}: a pair is made of single encoders, e.g. transformer")
        single = replace(config, kind=config.members, members=EncoderConfig.members)
        self.first, self.second = (make_encoder(single, topology, frames) for _ in range(2))

    @property
    def patch(self) -> int:
        return self.first.patch

    @property
    def width(self) -> int:
        return self.first.width + self.second.width

    def grid(self, frames: int) -> tuple[int, int]:
        return self.first.grid(frames)

    def align(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """What is concatenated: here the tokens as they are.

        Args:
            a, b: (sequence, patch, joint, width) of the first and the second encoder, whose patches and joints may
                differ in number.
        """
        return a, b

    def forward(
        self,
        joints: Float[Tensor, "sequence time joint 3"],
        hidden: Bool[Tensor, "sequence patch joint"] | None = None,
        visible: Int[Tensor, "sequence visible"] | None = None,
    ) -> Tokens:
        """Encode sequences of one person each with both; `hidden` is refused."""
        if hidden is not None:
            raise BadInput(f"backbone.kind={self.kind} takes no mask tokens: choose a method that uses none")
        return self._both(self.first(joints, visible=visible), self.second(joints, visible=visible))

    def attention(self, joints: Float[Tensor, "sequence time joint 3"]) -> Float[Tensor, "sequence patch joint"] | None:
        """The mean of both encoders', without what one attends to in the other."""
        found = [one for one in (self.first.attention(joints), self.second.attention(joints)) if one is not None]
        return torch.stack(found).mean(0) if len(found) == 2 else None

    def encode_joints(self, joints: Float[Tensor, "sequence time joint 3"], keep: Int[Tensor, " kept"]) -> Tokens:
        return self._both(self.first.encode_joints(joints, keep), self.second.encode_joints(joints, keep))

    def _both(self, a: Tokens, b: Tokens) -> Tokens:
        return Tokens(None, torch.cat(self.align(a.patches, b.patches), -1))

    def on(self, topology: Topology) -> Pair:
        """A copy for another body: both encoders' copies, and the same alignment.

        Raises:
            BadInput: the two bodies share no joint.
        """
        other = type(self)(self.config, topology, self.frames)
        for name, module in self.named_children():
            other.add_module(name, module.on(topology) if isinstance(module, Encoder) else copy.deepcopy(module))
        return other.train(self.training)


class AlignedPair(Pair):
    """A pair with the alignment of the module's text."""

    kind = "aligned_pair"

    def __init__(self, config: EncoderConfig, topology: Topology, frames: int, masked: bool = False):
        super().__init__(config, topology, frames, masked)
        self.to_first = Across(self.first.width, config.heads, config.norm_eps)
        self.to_second = Across(self.first.width, config.heads, config.norm_eps)
        for across in (self.to_first, self.to_second):
            initialise(across, config.init, self.first.width)

    def align(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        flat_a, flat_b = a.flatten(1, -2), b.flatten(1, -2)
        return self.to_first(flat_a, flat_b).reshape(a.shape), self.to_second(flat_b, flat_a).reshape(b.shape)
