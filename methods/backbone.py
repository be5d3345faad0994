"""The one backbone of all methods: a ViT on skeletal-temporal patches.

It covers SLiM's encoder (section 3.1: class and register tokens, joint embedding, temporal rotary embedding) and
MAMP's (learned temporal and joint embeddings, Xavier initialisation), and encodes all tokens with mask tokens
(`hidden`) or only the visible ones by gather (`visible`). A patch is `patch` frames of one joint.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from methods.encoder import Encoder, EncoderConfig, Tokens, patchify
from methods.hyperbolic import exp0
from skeletons.topology import Topology

VERSION = 2


def rotary(time: Int[Tensor, "*token"], head_width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin (*token, head_width) of the rotary embedding (Su et al., RoFormer; base 10,000), computed in float64.

    Args:
        time: temporal index of each token.
    """
    frequency = 10000.0 ** (-torch.arange(0, head_width, 2, dtype=torch.float64, device=time.device) / head_width)
    angle = time[..., None] * frequency
    angle = torch.cat([angle, angle], -1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (i, i + half) of the last dimension."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Attention(nn.Module):
    """Multi-head self-attention; rotary position on the patch tokens, which come after the `extra` ones."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "sequence token width"], rope: tuple[Tensor, Tensor] | None = None
    ) -> Float[Tensor, "sequence token width"]:
        q, k, v = self._projected(x, rope)
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "s h n d -> s n (h d)"))

    def weights(
        self, x: Float[Tensor, "sequence token width"], rope: tuple[Tensor, Tensor] | None, queries: slice
    ) -> Float[Tensor, "sequence token"]:
        """How much each token is attended to: the mean over heads and queries; sums to 1.

        Args:
            queries: the tokens that attend.
        """
        q, k, _ = self._projected(x, rope)
        logits = q[:, :, queries] @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        return logits.softmax(-1).mean((1, 2))

    def _projected(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (sequence, head, token, width of a head) each."""
        q, k, v = rearrange(self.qkv(x), "s n (three h d) -> three s h n d", three=3, h=self.heads)
        if rope is not None:
            q, k = _rotate(q, *rope).to(v.dtype), _rotate(k, *rope).to(v.dtype)
        return q, k, v


class FeedForward(nn.Module):
    """MLP with GELU (erf), or SwiGLU (Shazeer, 2020) with gate and value in one projection."""

    def __init__(self, width: int, hidden: int, kind: str):
        super().__init__()
        self.gated = kind == "swiglu"
        self.up = nn.Linear(width, 2 * hidden if self.gated else hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        if not self.gated:
            return self.down(F.gelu(self.up(x)))
        gate, value = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, hidden: int, mlp: str = "gelu", eps: float = 1e-5, drop: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.attention = Attention(width, heads)
        self.mlp = FeedForward(width, hidden, mlp)
        self.drop = drop

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None = None) -> Tensor:
        x = x + self._dropped(self.attention(self.norm1(x), rope))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        """Stochastic depth: a sequence skips the branch with probability `drop`."""
        if not self.training or self.drop == 0:
            return x
        keep = torch.rand(len(x), 1, 1, device=x.device) >= self.drop
        return x * keep / (1 - self.drop)


def initialise(module: nn.Module, init: str, width: int = 256) -> None:
    """Initialise every Linear of `module`: trunc_normal or xavier weights, zero biases.

    The normal's std is 0.02 at the papers' width, 256, and grows as its fan-in shrinks, so that a narrow encoder's
    activations have the same scale; at 0.02 they would be so small that the first steps decide everything.
    """
    std = 0.02 * (256 / width) ** 0.5
    for m in module.modules():
        if isinstance(m, nn.Linear):
            if init == "xavier":
                nn.init.xavier_uniform_(m.weight)
            else:
                nn.init.trunc_normal_(m.weight, std=std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


class Transformer(Encoder):
    """The backbone for one topology and number of time patches.

    Args:
        config: its shape.
        topology: joints; the joint embedding is kept by anatomical name, see `on`.
        frames: frames of its longest input (sets the learned temporal embedding's length).
        masked: it will be given `hidden`, so it owns a mask token.
    """

    kind = "transformer"

    def __init__(self, config: EncoderConfig, topology: Topology, frames: int, masked: bool = False):
        super().__init__(config, topology, frames)
        c = config
        self.embed = nn.Linear(c.patch * 3, c.width)
        self.joint = nn.Parameter(torch.empty(len(topology), c.width))
        self.time = nn.Parameter(torch.empty(frames // c.patch, c.width)) if c.position == "learned" else None
        self.extra = c.registers + c.class_token
        self.prefix = nn.Parameter(torch.empty(self.extra, c.width)) if self.extra else None
        self.mask_token = nn.Parameter(torch.zeros(1, c.width)) if masked else None
        rates = torch.linspace(0, c.drop_path, c.depth, device="cpu").tolist()
        hidden = c.hidden_width()
        self.blocks = nn.ModuleList(Block(c.width, c.heads, hidden, c.mlp, c.norm_eps, r) for r in rates)
        self.norm = nn.LayerNorm(c.width, c.norm_eps)
        initialise(self, c.init, c.width)
        self.embed.reset_parameters()  # a convolution in MAMP's and SLiM's code: it stays as PyTorch starts it
        for p in (self.joint, self.time):
            if p is not None:
                nn.init.trunc_normal_(p, std=0.02)
        if self.prefix is not None:
            nn.init.normal_(self.prefix, std=1e-6 if c.init == "trunc_normal" else 0.02)
            if c.class_token and c.init == "trunc_normal":
                nn.init.trunc_normal_(self.prefix.data[:1], std=0.02)  # the release's slot 0 of the joint table

    def forward(
        self,
        joints: Float[Tensor, "sequence time joint 3"],
        hidden: Bool[Tensor, "sequence patch joint"] | None = None,
        visible: Int[Tensor, "sequence visible"] | None = None,
    ) -> Tokens:
        """Encode sequences of one person each.

        Args:
            joints: metres; time a multiple of the patch.
            hidden: these tokens are replaced by the mask token.
            visible: encode only these tokens (flat, time-major indices).
        """
        x, rope = self._embedded(joints, hidden, visible)
        for block in self.blocks:
            x = block(x, rope)
        return self._tokens(x, joints if visible is None else None)

    def last_blocks(self, joints: Float[Tensor, "sequence time joint 3"], count: int) -> list[Tokens]:
        """Tokens after each of the last `count` blocks, through the final norm, the last block's first."""
        x, rope = self._embedded(joints, None, None)
        found = []
        for left, block in zip(range(len(self.blocks) - 1, -1, -1), self.blocks):
            x = block(x, rope)
            if left < count:
                found.append(self._tokens(x, joints))
        return found[::-1]

    def attention(self, joints: Float[Tensor, "sequence time joint 3"]) -> Float[Tensor, "sequence patch joint"]:
        """The last block's: of the class token, or, where there is none, the mean over patch tokens."""
        x, rope = self._embedded(joints, None, None)
        for block in self.blocks[:-1]:
            x = block(x, rope)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        queries = slice(0, 1) if self.config.class_token else slice(self.extra, None)
        found = last.attention.weights(last.norm1(x), rope, queries)[:, self.extra :]
        return found.unflatten(1, self.grid(joints.shape[1]))

    def _embedded(
        self, joints: Tensor, hidden: Tensor | None, visible: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Tokens before the first block, extra ones first, and the rotary position of all."""
        x = patchify(joints, self.patch)
        grid = x.shape[1:3]
        index = torch.arange(grid[0] * grid[1], device=x.device)
        time, joint = index // grid[1], index % grid[1]
        x = x.flatten(1, 2)
        if visible is not None:  # gather before embedding: hidden patches cost nothing
            x = x.gather(1, visible[..., None].expand(-1, -1, x.shape[-1]))
            time, joint = time[visible], joint[visible]
        x = self.embed(x)
        if hidden is not None:
            assert self.mask_token is not None, "this encoder was built without a mask token"
            at = hidden.flatten(1)[..., None]
            if self.config.mask_token == "embedding":
                x = torch.where(at, self.mask_token.to(x.dtype), x) + self.joint[joint]
            else:
                x = torch.where(at, self.mask_token.to(x.dtype), (x + self.joint[joint]).to(x.dtype))
        else:
            x = x + self.joint[joint]
        rope = None
        if self.time is not None:
            x = x + self.time[time]
        else:
            rope = self._rope(time, x)
        if self.config.embedding == "hyperbolic":
            x = exp0(x, self.config.curvature)
        if self.prefix is not None:
            x = torch.cat([self.prefix.expand(len(x), -1, -1).to(x.dtype), x], 1)
        return x, rope

    def _tokens(self, x: Tensor, joints: Tensor | None) -> Tokens:
        """What a block gave, through the final norm; patches as a grid where all of the `joints` were encoded."""
        x = self.norm(x)
        patches = x[:, self.extra :]
        if joints is not None:
            patches = patches.unflatten(1, (joints.shape[1] // self.patch, joints.shape[2]))
        return Tokens(x[:, 0] if self.config.class_token else None, patches)

    def encode_joints(self, joints: Float[Tensor, "sequence time joint 3"], keep: Int[Tensor, " kept"]) -> Tokens:
        """Encode bodies without the joints that are not kept: their tokens are not there."""
        times, count = self.grid(joints.shape[1])
        at = (count * torch.arange(times, device=joints.device)[:, None] + keep).flatten()
        tokens = self(joints, visible=at.expand(len(joints), -1))
        return tokens._replace(patches=tokens.patches.unflatten(1, (times, -1)))

    def embeddings(self, joints: Float[Tensor, "sequence time joint 3"]) -> Float[Tensor, "sequence patch joint width"]:
        """Every token before the first block: patch, joint and (where it is learned) temporal embedding, Euclidean even
        where the blocks are given points of the Poincare ball."""
        x = self.embed(patchify(joints, self.patch)) + self.joint
        return x if self.time is None else x + self.time[: x.shape[1], None]

    def below_output(self, name: str) -> int:
        """Layers are the embeddings and tokens, each block, and the final norm (DINOv2's counting)."""
        kind, _, rest = name.partition(".")
        if kind == "blocks":
            return len(self.blocks) - int(rest.partition(".")[0])
        return 0 if kind == "norm" else len(self.blocks) + 1

    def embeds_patches(self, name: str) -> bool:
        """Whether the parameter called `name` is the patch embedding's."""
        return name.startswith("embed.")

    def _rope(self, time: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin for all tokens, (token, head) or (sequence, 1, token, head); extra tokens are not rotated."""
        cos, sin = rotary(time, self.config.width // self.config.heads, x.dtype)
        cos, sin = F.pad(cos, (0, 0, self.extra, 0), value=1.0), F.pad(sin, (0, 0, self.extra, 0))
        return (cos, sin) if cos.ndim == 2 else (cos[:, None], sin[:, None])

    def on(self, topology: Topology) -> Transformer:
        """A copy of this encoder for another body: its joint embedding by anatomical name, the nearest known ancestor's
        where a joint is unknown.

        Raises:
            BadInput: the two bodies share no joint.
        """
        other = Transformer(self.config, topology, self.frames, masked=self.mask_token is not None).to(self.joint)
        state = self.state_dict()
        state["joint"] = state["joint"][topology.matching(self.topology.joints)]
        other.load_state_dict(state)
        return other
