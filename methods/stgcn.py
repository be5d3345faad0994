"""ST-GCN (Yan et al., AAAI 2018) in the sizes of SkeletonCLR, AimCLR and PSTL: an encoder of kind `stgcn`.

Ten layers; with base = width / 16 their channels are 1, 1, 1, 1, 2, 2, 2, 4, 4 times base and, last, width (width 256:
16, 16, 16, 16, 32, 32, 32, 64, 64, 256; github Levigty/AimCLR, net/st_gcn.py). A layer mixes joints, then time:

    y = sum_k conv1x1_k(x) (A_k * M_k),   out = ReLU(drop(BN(conv9(ReLU(BN(y))))) + residual(x))

A_k are the three spatial partitions of the bone graph with self-loops: the joint itself, the neighbours farther from
the root, and the neighbour nearer to it; together they average over a joint's neighbourhood. M_k (edge importance) is
learnt for each layer, at first 1. The residual is none in the first layer, the identity where sizes agree, else
BN(conv1x1). Coordinates are batch-normalised first, each of each joint.

Time is halved where channels grow: patch 4 (two halvings) is the papers'; 1 and 2 leave halvings out, 8 halves in the
last layer too. Of the shared settings it reads width, patch and dropout; depth, heads, tokens and position are the
transformer's.

In eval mode the features of a sequence do not depend on its batch. In train mode they do, and a second network that
follows this one must decide what its BatchNorm does; see methods/moco.py.

The released graph (net/utils/graph.py) measures distances from the joint between the shoulders, and only one bone far,
so that most of its edges fall into one partition; here they are measured from the topology's root, as far as they go.

A departure: weights start as PyTorch starts them, as in PSTL's release. AimCLR's (processor/pretrain.py, SkeletonCLR's
as it runs it too) draws those of convolutions and linear layers from N(0, 0.02), of batch norms from N(1, 0.02), biases
0. ASSUMPTION: where joints are removed (PSTL), the rest of A keeps its values: it is not normalised again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from methods.distributed import BatchNorm
from methods.encoder import Encoder, EncoderConfig, Tokens
from skeletons.errors import BadInput
from skeletons.topology import Topology

KERNEL = 9  # frames of a temporal convolution
CHANNELS = (1, 1, 1, 1, 2, 2, 2, 4, 4, 16)  # of each layer, times width / 16
GROWTH = tuple(i for i in range(1, len(CHANNELS)) if CHANNELS[i] > CHANNELS[i - 1])
PATCHES = tuple(2**halvings for halvings in range(len(GROWTH) + 1))


def partitions(topology: Topology) -> Float[Tensor, "3 joint joint"]:
    """A_k[v, w], the weight of joint v in joint w's sum: w itself, neighbours farther from the root than w, and the one
    nearer to it. Over k and v it sums to 1 for every w."""
    count = len(topology)
    found = torch.zeros(3, count, count)
    found[0] = torch.eye(count)
    for child, parent in topology.bones:
        found[1, child, parent] = found[2, parent, child] = 1
    return found / found.sum((0, 1))


class Layer(nn.Module):
    """Spatial graph convolution, temporal convolution, residual; see the module's text."""

    def __init__(self, channels: int, out: int, stride: int, dropout: float, residual: bool):
        super().__init__()
        self.out = out
        self.space = nn.Conv2d(channels, 3 * out, 1)
        self.norm1 = BatchNorm(out)
        self.time = nn.Conv2d(out, out, (KERNEL, 1), (stride, 1), (KERNEL // 2, 0))
        self.norm2 = BatchNorm(out)
        self.dropout = nn.Dropout(dropout)
        self.residual = residual
        self.shortcut = None
        if residual and (channels != out or stride != 1):
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, (stride, 1)), BatchNorm(out))

    def forward(
        self, x: Float[Tensor, "sequence channel time joint"], adjacency: Float[Tensor, "3 joint joint"]
    ) -> Float[Tensor, "sequence out half joint"]:
        y = torch.einsum("skctv,kvw->sctw", self.space(x).unflatten(1, (3, self.out)), adjacency.to(x.dtype))
        y = self.dropout(self.norm2(self.time(F.relu(self.norm1(y)))))
        if self.residual:
            y = y + (x if self.shortcut is None else self.shortcut(x))
        return F.relu(y)


class STGCN(Encoder):
    """See the module's text. It has no tokens to hide; whole joints can be taken away, see `encode_joints`."""

    kind = "stgcn"

    def __init__(self, config: EncoderConfig, topology: Topology, frames: int, masked: bool = False):
        super().__init__(config, topology, frames, masked)
        if masked:
            raise BadInput("backbone.kind=stgcn has no tokens to hide: choose a method that masks none, or transformer")
        if config.width % CHANNELS[-1]:
            raise BadInput(
                f"backbone.width={config.width} must be a multiple of {CHANNELS[-1]} for backbone.kind=stgcn"
            )
        if config.patch not in PATCHES:
            raise BadInput(
                f"backbone.patch={config.patch}: backbone.kind=stgcn halves time, so it takes "
                f"{', '.join(map(str, PATCHES))} (the papers': 4)"
            )
        if not 0 <= config.dropout < 1:
            raise BadInput(f"backbone.dropout={config.dropout} must be in [0, 1)")
        halved = GROWTH[: PATCHES.index(config.patch)]
        sizes = [3, *(c * config.width // CHANNELS[-1] for c in CHANNELS)]
        self.norm = BatchNorm(3 * len(topology))
        self.layers = nn.ModuleList(
            Layer(sizes[i], sizes[i + 1], 2 if i in halved else 1, config.dropout if i else 0.0, residual=i > 0)
            for i in range(len(CHANNELS))
        )
        count = len(topology)
        self.importance = nn.ParameterList(nn.Parameter(torch.ones(3, count, count)) for _ in CHANNELS)
        self.register_buffer("adjacency", partitions(topology), persistent=False)
        self.adjacency: Tensor

    def forward(
        self,
        joints: Float[Tensor, "sequence time joint 3"],
        hidden: Bool[Tensor, "sequence patch joint"] | None = None,
        visible: Int[Tensor, "sequence visible"] | None = None,
        keep: Int[Tensor, " kept"] | None = None,
    ) -> Tokens:
        """Encode sequences of one person each; with `keep`, of these joints alone."""
        if hidden is not None or visible is not None:
            raise BadInput("backbone.kind=stgcn cannot hide single tokens: choose backbone.kind=transformer")
        # Coordinates are normalised each by itself, so this can stand before joints are taken away.
        x = rearrange(self.norm(rearrange(joints, "s t v c -> s (v c) t")), "s (v c) t -> s c t v", c=3)
        if keep is not None:
            x = x.index_select(3, keep)
        for layer, importance in zip(self.layers, self.importance):
            adjacency = self.adjacency * importance
            if keep is not None:
                adjacency = adjacency.index_select(1, keep).index_select(2, keep)
            x = layer(x, adjacency)
        return Tokens(None, rearrange(x, "s c t v -> s t v c"))

    def encode_joints(self, joints: Float[Tensor, "sequence time joint 3"], keep: Int[Tensor, " kept"]) -> Tokens:
        """Encode bodies without the joints that are not kept: neither the input nor the graph has them."""
        return self(joints, keep=keep)

    def on(self, topology: Topology) -> STGCN:
        """A copy of this encoder for another body: its own graph; the importance of edges between joints that both
        bodies have, by name, else 1; the input's statistics by name, the nearest known ancestor's where a joint is
        unknown.

        Raises:
            BadInput: the two bodies share no joint.
        """
        matched = topology.matching(self.topology.joints)
        other = STGCN(self.config, topology, self.frames).to(self.adjacency)
        state = self.state_dict()
        for name, value in state.items():
            if name.startswith("norm.") and value.ndim:
                state[name] = value.unflatten(0, (-1, 3))[matched].flatten()
        known = torch.tensor([name in self.topology.joints for name in topology.joints], device=self.adjacency.device)
        both = known[:, None] & known
        for i, importance in enumerate(self.importance):
            taken = importance.detach()[:, matched][:, :, matched]
            state[f"importance.{i}"] = torch.where(both, taken, torch.ones_like(taken))
        other.load_state_dict(state)
        return other.train(self.training)
