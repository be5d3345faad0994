"""What an encoder is: a person's sequence in, tokens out; all that methods, protocols and files of weights rely on.

The transformer of `methods/backbone.py` is the one backbone; another kind is a class of this contract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from methods.registry import import_files
from skeletons.errors import BadInput, check_choices, unknown
from skeletons.topology import Topology


@dataclass
class EncoderConfig:
    """The backbone (defaults: SLiM, section 4.2 and appendix A).

    Attributes:
        width, depth, heads: of the transformer.
        patch: frames of a patch.
        position: temporal position: rope (rotary, from 0 in every crop) or learned.
        class_token, registers: extra tokens before the patches; they carry no position.
        mlp: gelu or swiglu.
        mlp_hidden: its hidden width; 0 means 4 x width (gelu) or 8/3 x width rounded up to 8 (swiglu).
        norm_eps: of every LayerNorm.
        init: of linear layers: trunc_normal (std 0.02 at width 256; DINOv2) or xavier (MAE). The patch embedding starts
            as PyTorch's convolutions do.
        mask_token: embedding (replaces the patch embedding before the joint embedding is added) or paper (after it,
            SLiM's Eq. 3 read literally: all hidden joints of one time patch become the same token).
        drop_path: largest rate of stochastic depth, growing linearly over the blocks.
        embedding: euclidean, or hyperbolic: tokens enter the first block as points of the Poincare ball, by the
            exponential map of patch and position embedding (HA-CM).
        curvature: c of that ball, of radius 1 / sqrt(c).
        kind: of encoder: transformer, or another that a file of this folder adds (stgcn).
        dropout: of stgcn's layers (AimCLR: 0.5); the transformer has none.
        members: kind of each of the two encoders inside one of kind pair or aligned_pair.
    """

    width: int = 256
    depth: int = 8
    heads: int = 8
    patch: int = 8
    position: str = "rope"
    class_token: bool = True
    registers: int = 4
    mlp: str = "gelu"
    mlp_hidden: int = 0
    norm_eps: float = 1e-6
    init: str = "trunc_normal"
    mask_token: str = "embedding"
    drop_path: float = 0.0
    kind: str = "transformer"
    embedding: str = "euclidean"
    curvature: float = 1.0
    dropout: float = 0.5
    members: str = "transformer"

    def check(self) -> None:
        """Raises BadInput for sizes that do not fit and unknown names."""
        for name in ("width", "depth", "heads", "patch"):
            if getattr(self, name) < 1:
                raise BadInput(f"backbone.{name}={getattr(self, name)} must be at least 1")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise BadInput(
                f"backbone.width={self.width} must be divisible by backbone.heads={self.heads} with an even quotient"
            )
        check_choices(
            "backbone",
            self,
            position=("rope", "learned"),
            mlp=("gelu", "swiglu"),
            init=("trunc_normal", "xavier"),
            mask_token=("embedding", "paper"),
            embedding=("euclidean", "hyperbolic"),
        )
        if self.curvature <= 0:
            raise BadInput(f"backbone.curvature={self.curvature} must be positive")

    def hidden_width(self) -> int:
        """Width of the MLP's hidden layer."""
        if self.mlp_hidden:
            return self.mlp_hidden
        return 4 * self.width if self.mlp == "gelu" else -(-8 * self.width // 24) * 8


class Tokens(NamedTuple):
    """The encoder's output after the final norm.

    Attributes:
        cls: class token, None where the encoder has none.
        patches: all tokens as a grid, or (sequence, visible, width) where only the visible ones were encoded.
    """

    cls: Float[Tensor, "sequence width"] | None
    patches: Tensor


def patchify(
    x: Float[Tensor, "sequence time joint channel"], patch: int
) -> Float[Tensor, "sequence patch joint value"]:
    """Values of each patch in the order frame, then coordinate (MAMP)."""
    return rearrange(x, "s (t p) j c -> s t j (p c)", p=patch)


ENCODERS: dict[str, type[Encoder]] = {}


class Encoder(nn.Module, ABC):
    """The contract of an encoder for one topology and number of frames.

    Args:
        config: its shape.
        topology: joints of its input.
        frames: frames of its longest input, a multiple of the patch.

    Attributes:
        kind: as in `backbone.kind`.
        version: of kinds other than the transformer (see backbone.VERSION): bump when its meaning changes.
        mask_token: the learnt token in place of hidden ones, where it was built with `masked`.
        extra: tokens before the patches.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    extra: int = 0
    mask_token: nn.Parameter | None

    def __init__(self, config: EncoderConfig, topology: Topology, frames: int, masked: bool = False):
        super().__init__()
        config.check()
        if frames % config.patch:
            raise BadInput(f"views.frames={frames} must be a multiple of backbone.patch={config.patch}")
        self.config, self.topology, self.frames = config, topology, frames
        self.mask_token = None

    def __init_subclass__(cls) -> None:
        if "kind" in cls.__dict__:
            ENCODERS[cls.kind] = cls

    @property
    def patch(self) -> int:
        """Frames of a token."""
        return self.config.patch

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.config.width

    def grid(self, frames: int) -> tuple[int, int]:
        """(time patches, joint patches) of an input of `frames` frames."""
        return frames // self.patch, len(self.topology)

    def embeddings(self, joints: Float[Tensor, "sequence time joint 3"]) -> Float[Tensor, "sequence patch joint width"]:
        """Every token before the first block, Euclidean, for masking strategies that look at it."""
        raise BadInput(f"an encoder of kind {self.kind!r} has no embeddings to guide masking by")

    def attention(self, joints: Float[Tensor, "sequence time joint 3"]) -> Float[Tensor, "sequence patch joint"] | None:
        """How much of the last layer's attention goes to each token, mean over heads; what is missing to 1 goes to
        tokens before the patches. None of an encoder that does not attend, or shows nothing of it."""
        return None

    @abstractmethod
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

    def last_blocks(self, joints: Float[Tensor, "sequence time joint 3"], count: int) -> list[Tokens]:
        """Tokens after each of the last `count` blocks, through the final norm, the last block's first; fewer where
        there are not so many, and the output alone of an encoder that does not show its blocks."""
        return [self(joints)]

    def encode_joints(self, joints: Float[Tensor, "sequence time joint 3"], keep: Int[Tensor, " kept"]) -> Tokens:
        """Encode bodies from which joints have been removed, the same ones of all sequences: not masked, not there.

        Args:
            joints: of the full body.
            keep: indices of the joints that stay, ascending.

        Returns:
            patches are (sequence, patch, kept, width).
        """
        raise BadInput(f"an encoder of kind {self.kind!r} cannot have joints removed")

    def below_output(self, name: str) -> int:
        """How many layers lie between the parameter called `name` and the output, for `train.layer_decay`."""
        return 0

    def embeds_patches(self, name: str) -> bool:
        """Whether the parameter called `name` is the patch embedding's, for `train.patch_embed_rate`."""
        return False

    @abstractmethod
    def on(self, topology: Topology) -> Encoder:
        """A copy of this encoder for another body.

        Raises:
            BadInput: the two bodies share no joint.
        """


def encoder_kinds() -> dict[str, type[Encoder]]:
    """Every kind of encoder by name: each file of this folder is imported."""
    import_files("methods")
    return ENCODERS


def make_encoder(config: EncoderConfig, topology: Topology, frames: int, masked: bool = False) -> Encoder:
    """The encoder that `config.kind` names.

    Args:
        masked: it will be given `hidden` tokens, so it owns a mask token.

    Raises:
        BadInput: an unknown kind, or sizes that do not fit.
    """
    if config.kind not in encoder_kinds():
        raise unknown("backbone.kind", config.kind, ENCODERS)
    return ENCODERS[config.kind](config, topology, frames, masked)
