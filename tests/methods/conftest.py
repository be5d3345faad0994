"""Small methods and batches for them, and a reference encoder written out in plain formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.base import Method, Parts, QueueConfig, method_class
from methods.decoder import Decoder, DecoderConfig
from methods.encoder import Encoder, EncoderConfig
from methods.heads import HeadConfig
from methods.masking import MaskingConfig
from skeletons.augment import Augmentation, AugmentConfig
from skeletons.clips import Clips
from skeletons.randomness import Draws
from skeletons.sampling import Batch, ClipTensors, LocalView, Sampler, ViewConfig
from skeletons.topology import KINECT_V2, Topology
from tests.methods.short_runs import runner


@pytest.fixture
def double() -> Iterator[None]:
    """float64 wherever a type is not said."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def bodies() -> Callable[..., Clips]:
    """Makes clips of swinging bodies; every third clip has a second person."""

    def make(topology: Topology = KINECT_V2, clips: int = 6, persons: int = 2, seed: int = 0) -> Clips:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(20, 50, clips)
        offsets = np.concatenate([[0], lengths.cumsum()])
        clip_of, time = np.repeat(np.arange(clips), lengths), np.arange(offsets[-1])[:, None, None, None]
        size = (2, len(topology), 3)
        phase = rng.uniform(0, 6, (clips, *size))[clip_of]
        speed = rng.uniform(0.05, 0.5, (clips, *size))[clip_of]
        frames = rng.normal(0, 0.4, size) + 0.2 * np.sin(speed * time + phase)
        present = np.ones((clips, 2), bool)
        present[:, 1] = np.arange(clips) % 3 == 2
        frames *= present[clip_of][:, :, None, None]
        frames, present = frames[:, :persons].astype(np.float32), present[:, :persons]
        seen = np.repeat(present[clip_of][:, :, None], len(topology), 2)
        seen[5:30, 0, -1] = False  # the last joint of the first clip is lost for a while
        return Clips(
            name="bodies",
            frames=frames,
            observed=seen,
            offsets=offsets,
            origin=frames[offsets[:-1], 0, topology.root],
            present=present,
            table={"label": np.arange(clips) % 3, "subject": np.arange(clips) // 2},
            topology=topology,
            class_names=("a", "b", "c"),
            fps=30.0,
            fingerprint=f"bodies{seed}",
            source="generated",
        )

    return make


@pytest.fixture(scope="session")
def views() -> ViewConfig:
    return ViewConfig(frames=16, locals=[LocalView(8, 2, 0.35, 0.7), LocalView(4, 1, 0.1, 0.4)])


@pytest.fixture(scope="session")
def parts(views: ViewConfig) -> Callable[..., Parts]:
    """Makes the parts of a small method: `parts("slim", masking={"strategy": "tube"}, method={"koleo": 0.0})`."""

    def make(name: str, topology: Topology = KINECT_V2, **fields: Any) -> Parts:
        small = {
            "backbone": EncoderConfig(width=16, depth=2, heads=2, patch=4),
            "decoder": DecoderConfig(width=16, depth=1, heads=2),
            "heads": HeadConfig(prototypes=24, hidden=32, bottleneck=8),
            "masking": MaskingConfig(strategy="random"),
            "views": views,
            "queue": QueueConfig(length=40),
        }
        made = Parts(method_class(name).Config(name=name), topology, classes=3, steps=100, **small)
        for section, values in fields.items():
            now = getattr(made, section)
            made = replace(made, **{section: replace(now, **values) if isinstance(values, dict) else values})
        return made

    return make


@pytest.fixture(scope="session")
def sampler(bodies: Callable[..., Clips], views: ViewConfig) -> Callable[..., Sampler]:
    """Makes a sampler of the view groups that a method asks for."""

    def make(method: Method | type[Method], clips: Clips | None = None, topology: Topology = KINECT_V2) -> Sampler:
        clips = clips or bodies(topology)
        augmentation = Augmentation(AugmentConfig(), clips.topology)
        store = ClipTensors(clips)
        wanted = (method.crops, method.local_views, method.one_person, method.uses_labels, method.augments)
        return Sampler(store, views, augmentation, *wanted)

    return make


@pytest.fixture(scope="session")
def batch(sampler: Callable[..., Sampler]) -> Callable[..., dict[str, Batch]]:
    """Makes the view groups of one step for a method."""

    def make(method: Method | type[Method], topology: Topology = KINECT_V2, **given: Any) -> dict[str, Batch]:
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)  # the store's
        made = sampler(method, topology=topology, **given)
        found = made(torch.arange(len(made.store)), Draws(0, 0))
        torch.set_default_dtype(default)
        return found

    return make


@pytest.fixture
def run(parts: Callable[..., Parts], sampler: Callable[..., Sampler]) -> Callable[..., Any]:
    """Trains a small method for a few steps: `run("slim", config, folder, stop=6)`."""
    return runner(parts, sampler)


def scramble(module: torch.nn.Module, seed: int = 0, std: float = 0.3) -> None:
    """Random values in place of initial ones, so that biases, gains and tokens all matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(std * torch.randn(p.shape, generator=generator, dtype=p.dtype))


class Reference:
    """Encoder and decoder in plain formulas: loops over sequences, tokens and heads."""

    scramble = staticmethod(scramble)

    @staticmethod
    def linear(layer: torch.nn.Linear, x: Tensor) -> Tensor:
        return torch.einsum("ni,oi->no", x, layer.weight) + layer.bias

    @staticmethod
    def norm(layer: torch.nn.LayerNorm, x: Tensor) -> Tensor:
        centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
        variance = (centred**2).sum(-1, keepdim=True) / x.shape[-1]
        return centred / torch.sqrt(variance + layer.eps) * layer.weight + layer.bias

    @staticmethod
    def turned(x: Tensor, time: int) -> Tensor:
        """One head's query or key: pairs (i, i + half) turned by time / 10000^(i / half)."""
        half = len(x) // 2
        y = torch.empty_like(x)
        for i in range(half):
            angle = time / 10000 ** (i / half)
            turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            y[[i, i + half]] = x.new_tensor(turn) @ x[[i, i + half]]
        return y

    @classmethod
    def attention(cls, layer: Any, x: Tensor, times: list[int | None]) -> Tensor:
        count, width = x.shape
        size = width // layer.heads
        qkv, heads = cls.linear(layer.qkv, x), []
        for h in range(layer.heads):
            q, k, v = (qkv[:, part * width + h * size : part * width + (h + 1) * size] for part in range(3))
            q, k = (
                torch.stack([row if t is None else cls.turned(row, t) for row, t in zip(rows, times)])
                for rows in (q, k)
            )
            out = []
            for n in range(count):
                weight = torch.exp(k @ q[n] / math.sqrt(size))
                out.append((weight / weight.sum()) @ v)
            heads.append(torch.stack(out))
        return cls.linear(layer.out, torch.cat(heads, 1))

    @classmethod
    def block(cls, block: Any, x: Tensor, times: list[int | None]) -> Tensor:
        x = x + cls.attention(block.attention, cls.norm(block.norm1, x), times)
        up = cls.linear(block.mlp.up, cls.norm(block.norm2, x))
        if block.mlp.gated:
            gate, value = up[:, : up.shape[1] // 2], up[:, up.shape[1] // 2 :]
            up = gate / (1 + torch.exp(-gate)) * value
        else:
            up = up * (1 + torch.erf(up / math.sqrt(2))) / 2
        return x + cls.linear(block.mlp.down, up)

    @classmethod
    def encode(
        cls, encoder: Encoder, joints: Tensor, hidden: Tensor | None = None, visible: Tensor | None = None
    ) -> Tensor:
        """All output tokens, (sequence, extra + token, width)."""
        c, found = encoder.config, []
        for s, x in enumerate(joints):
            tokens, times = [], []
            for t in range(len(x) // c.patch):
                for j in range(x.shape[1]):
                    values = torch.stack([x[t * c.patch + f, j, axis] for f in range(c.patch) for axis in range(3)])
                    token = encoder.embed.weight @ values + encoder.embed.bias
                    covered = hidden is not None and bool(hidden[s, t, j])
                    if covered and c.mask_token == "embedding":
                        token = encoder.mask_token[0]
                    token = token + encoder.joint[j]
                    if covered and c.mask_token == "paper":
                        token = encoder.mask_token[0]
                    if c.position == "learned":
                        token = token + encoder.time[t]
                    tokens.append(token)
                    times.append(t if c.position == "rope" else None)
            if visible is not None:
                tokens, times = [tokens[i] for i in visible[s]], [times[i] for i in visible[s]]
            extra = [] if encoder.prefix is None else list(encoder.prefix)
            rows, at = torch.stack(extra + tokens), [None] * len(extra) + times
            for block in encoder.blocks:
                rows = cls.block(block, rows, at)
            found.append(cls.norm(encoder.norm, rows))
        return torch.stack(found)

    @classmethod
    def decode(cls, decoder: Decoder, tokens: Tensor, visible: Tensor) -> Tensor:
        """Predictions, (sequence, token, value)."""
        found = []
        for rows, shown in zip(tokens, visible):
            full = []
            for t in range(decoder.grid[0]):
                for j in range(decoder.grid[1]):
                    where = (shown == t * decoder.grid[1] + j).nonzero().flatten().tolist()
                    token = cls.linear(decoder.embed, rows[where])[0] if where else decoder.mask_token[0]
                    full.append(token + decoder.time[t, 0] + decoder.joint[0, j])
            x = torch.stack(full)
            for block in decoder.blocks:
                x = cls.block(block, x, [None] * len(x))
            found.append(cls.linear(decoder.predict, cls.norm(decoder.norm, x)))
        return torch.stack(found)


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference
