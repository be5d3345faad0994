"""What a configuration costs: whole training steps counted on the meta device, where tensors have shapes only."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import nn

from methods import prototypes
from methods.base import Method, Parts, build
from methods.encoder import Encoder
from methods.flops import VECTOR, counted, counter
from methods.trainer import steps_in
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import KINECT_V2, Topology
from sweeps.config import Config

JOINTS, PERSONS = len(KINECT_V2), 2
CLIPS, CLASSES = 40_091, 60  # NTU-60 X-Sub's training clips, which turn epochs into steps, and its classes


def parts_of(config: Config, topology: Topology, classes: int, steps: int = 1, chiral: bool = False) -> Parts:
    """What the configuration's method is built from.

    Args:
        topology, classes, chiral: of the data.
        steps: length of the run.
    """
    sections = {name: getattr(config, name) for name in Parts.__dataclass_fields__ if hasattr(config, name)}
    return Parts(**sections, topology=topology, classes=classes, steps=steps, chiral=chiral)


class Pass(NamedTuple):
    """A forward pass over one sequence (one person of one view): its tokens, and its FLOPs."""

    tokens: int
    flops: int


@dataclass
class MethodCost:
    """What a method costs, in FLOPs.

    Attributes:
        config: what was counted.
        inference: the encoder that is kept, on one person.
        passes: in training: encoder (the student's), decoder and target network (the teacher's encoder), on one person
            of the first views they are given.
        step: a training step of `batch` clips: the forward passes of encoder, decoder, target network and heads over
            all views; loss (products with prototypes, their gradients, and other products); sinkhorn; backward.
        recomputed: what prototypes in chunks compute again in a step; not in `step`.
        steps, batch: of the schedule.
        encoder_parameters, other_parameters: of the encoder that is kept, and of all that only training needs.
        terms: names of the loss's parts and statistics.
    """

    config: Config
    inference: Pass
    passes: dict[str, Pass] = field(default_factory=dict)
    step: dict[str, int] = field(default_factory=dict)
    recomputed: int = 0
    steps: int = 0
    batch: int = 1
    encoder_parameters: int = 0
    other_parameters: int = 0
    terms: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """A whole training step."""
        return sum(self.step.values())


def cost(config: Config) -> MethodCost:
    """Count a method on the meta device.

    Raises:
        BadInput: settings from which the method cannot be built.
    """
    c = config
    method = build(parts_of(c, KINECT_V2, CLASSES)).to("meta")
    joints = torch.empty(1, c.views.frames, JOINTS, 3, device="meta")
    tokens = c.views.frames // c.backbone.patch * JOINTS + method.kept.extra
    found = MethodCost(c, Pass(tokens, counted(lambda: method.kept(joints))))
    found.encoder_parameters = sum(p.numel() for p in method.kept.parameters())
    found.other_parameters = sum(p.numel() for p in method.parameters()) - found.encoder_parameters
    if method.trains:
        c.train.check()
        found.batch, found.steps = c.train.batch, max(1, steps_in(c.train.length, c.train.batch, CLIPS))
        views = views_of(method, c)
        found.step, found.passes, found.terms = count_step(method, views)
        if "heads" in found.step:
            found.recomputed = sum(count_step(method, views, recompute=True).flops.values()) - found.total
    return found


def count_views(config: Config, topology: Topology, persons: int) -> Step:
    """FLOPs of one training step on clips of `persons` present persons (see `count_step`)."""
    method = build(parts_of(config, topology, CLASSES)).to("meta")
    return count_step(method, views_of(method, config, len(topology), persons))


class Step(NamedTuple):
    """FLOPs of a training step by part, each network's first pass, and the loss's terms (see MethodCost)."""

    flops: dict[str, int]
    passes: dict[str, Pass]
    terms: tuple[str, ...]


def count_step(method: Method, views: dict[str, Batch], recompute: bool = False) -> Step:
    """Count one training step.

    Args:
        method: on the meta device.
        recompute: count prototypes as they run, in chunks (two of them: more cost the same); else as if one chunk
            held everything.
    """
    forward: Counter[str] = Counter()
    passes: dict[str, Pass] = {}
    before: list[int] = []  # of the modules that are running, outermost first
    with counter() as count, ExitStack() as stack:

        def watch(module: nn.Module, part: str) -> None:
            def enter(module: nn.Module, inputs: Any) -> None:
                before.append(count.get_total_flops())

            def leave(module: nn.Module, inputs: Any, output: Any) -> None:
                flops = count.get_total_flops() - before.pop()
                if before:  # it is counted with the one that holds it: an encoder of a pair
                    return
                forward[part] += flops
                encoded = isinstance(module, Encoder)
                tokens = output.patches.flatten(1, -2).shape[1] + module.extra if encoded else output.shape[1]
                passes.setdefault(part, Pass(tokens, flops // len(inputs[0])))

            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)

        for module in method.modules():
            if part := _part(module):
                watch(module, part)
        if recompute:
            stack.enter_context(mock.patch.object(prototypes, "_Assignment", _InTwo))
        else:
            stack.enter_context(mock.patch.object(prototypes, "CHUNK", sys.maxsize))
        terms = method.loss(views, Draws(0, 0, device="meta"))
        ahead, kinds = count.get_total_flops(), count.get_flop_counts()["Global"]
        sinkhorn = sum(kinds.get(kind, 0) for kind in VECTOR)
        terms["loss"].backward()
        backward = count.get_total_flops() - ahead
    rest = ahead - forward.total() - sinkhorn
    return Step({**forward, "loss": rest, "sinkhorn": sinkhorn, "backward": backward}, passes, tuple(terms))


class _InTwo(prototypes._Assignment):
    """An assignment whose chunks are put together to two: as many FLOPs as with hundreds, counted in a second."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if len(self.chunks) > 2:
            half = len(self.rows) // 2
            self.chunks = [slice(0, half), slice(half, len(self.rows))]
            self.buffer = self.new_buffer()


def _part(module: nn.Module) -> str | None:
    """The part of a step to which a module's forward passes belong."""
    if isinstance(module, Encoder):
        return "encoder" if any(p.requires_grad for p in module.parameters()) else "target network"
    return getattr(module, "step_part", None)


def views_of(method: Method, config: Config, joints: int = JOINTS, persons: int = PERSONS) -> dict[str, Batch]:
    """A step's view groups on the meta device, as the sampler makes them, all persons present."""

    def batch(views: int, frames: int) -> Batch:
        shape = (views * config.train.batch, 1 if method.one_person else persons, frames, joints)
        with torch.device("meta"):
            observed, present = (torch.empty(s, dtype=torch.bool) for s in (shape, shape[:2]))
            labels = torch.empty(shape[0], dtype=torch.long) if method.uses_labels else None
            return Batch(torch.empty(*shape, 3), observed, present, views, labels)

    if not method.local_views:
        return {"clip": batch(method.crops, config.views.frames)}
    crops = {
        f"local{v.frames}-{i}": batch(method.crops * v.crops, v.frames)
        for i, v in enumerate(config.views.local_views())
    }
    return {"global": batch(method.crops, config.views.frames), **crops}
