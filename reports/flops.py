"""`python reports/flops.py [method=NAME] [format=text|markdown|csv|latex] [SECTION.FIELD=VALUE ...]`: what the methods
cost, as counted here, beside SLiM's Table 1.

Without `method` it counts skeletonmae, mamp and slim. Settings are written as for sweeps/run.py; scale=paper unless
another is given. Nothing is computed: whole training steps run on the meta device, where tensors have shapes only.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder's own files must not stand in for packages of the same name

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from methods.backbone import Encoder, EncoderConfig  # noqa: E402
from methods.base import Method, Parts, build, method_class  # noqa: E402
from methods.decoder import Decoder, DecoderConfig  # noqa: E402
from methods.prototypes import CHUNK, HeadConfig, PrototypeHead, prototype_cross_entropy  # noqa: E402
from methods.trainer import steps_in  # noqa: E402
from reports.tables import FORMATS, Table, as_text  # noqa: E402
from skeletons.errors import BadInput, unknown  # noqa: E402
from skeletons.randomness import Draws  # noqa: E402
from skeletons.sampling import Batch  # noqa: E402
from skeletons.topology import KINECT_V2  # noqa: E402
from sweeps.config import Config, compose  # noqa: E402

PUBLISHED = ROOT / "reports" / "published" / "flops.csv"
DEFAULT = ("skeletonmae", "mamp", "slim")
DEPTH = 5  # blocks of the decoders whose FLOPs were published; MAMP's own NTU-60 runs have 3
JOINTS, PERSONS = len(KINECT_V2), 2
CLIPS, CLASSES = 40_091, 60  # NTU-60 X-Sub's training clips, which turn epochs into steps, and its classes
RULE = """\
FLOPs = 2 x MAC, of matrix products, convolutions and attention only: norms, GELU, softmax, biases and other
element-wise operations are left out. Counted by torch's FlopCounterMode on the meta device, where whole training steps
run at their full batch, together with the products of a matrix and a vector, which it does not know; analytic formulae
are held to the same numbers by a test. G = 10^9, exa = 10^18; Kinect v2, 25 joints.
"""


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
    """

    config: Config
    inference: Pass
    passes: dict[str, Pass] = field(default_factory=dict)
    step: dict[str, int] = field(default_factory=dict)
    recomputed: int = 0
    steps: int = 0
    batch: int = 1

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
    parts = Parts(c.method, KINECT_V2, c.backbone, c.decoder, c.heads, c.teacher, c.views, c.masking, CLASSES)
    method = build(parts).to("meta")
    joints = torch.empty(1, c.views.frames, JOINTS, 3, device="meta")
    tokens = c.views.frames // c.backbone.patch * JOINTS + method.kept.extra
    found = MethodCost(c, Pass(tokens, counted(lambda: method.kept(joints))))
    if method.trains:
        c.train.check()
        found.batch, found.steps = c.train.batch, max(1, steps_in(c.train.length, c.train.batch, CLIPS))
        found.step, found.passes = count_step(method, c)
        if "heads" in found.step:
            found.recomputed = sum(count_step(method, c, recompute=True)[0].values()) - found.total
    return found


def count_step(method: Method, config: Config, recompute: bool = False) -> tuple[dict[str, int], dict[str, Pass]]:
    """FLOPs of one training step by part, and each network's first pass (see MethodCost).

    Args:
        method: on the meta device.
        recompute: count prototypes as they run, in chunks; else as if one chunk held everything.
    """
    forward: Counter[str] = Counter()
    passes: dict[str, Pass] = {}
    with counter() as count, ExitStack() as stack:

        def watch(module: nn.Module, part: str) -> None:
            before: list[int] = []

            def enter(module: nn.Module, inputs: Any) -> None:
                before.append(count.get_total_flops())

            def leave(module: nn.Module, inputs: Any, output: Any) -> None:
                flops = count.get_total_flops() - before.pop()
                forward[part] += flops
                encoded = isinstance(module, Encoder)
                tokens = output.patches.flatten(1, -2).shape[1] + module.extra if encoded else output.shape[1]
                passes.setdefault(part, Pass(tokens, flops // len(inputs[0])))

            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)

        for module in method.modules():
            if part := _part(module):
                watch(module, part)
        where = sys.modules[type(method).loss.__module__]
        if hasattr(where, "prototype_cross_entropy"):
            stack.enter_context(mock.patch.object(where, "prototype_cross_entropy", _in_chunks(recompute)))
        loss = method.loss(views_of(method, config), Draws(0, 0, device="meta"))["loss"]
        ahead, kinds = count.get_total_flops(), count.get_flop_counts()["Global"]
        sinkhorn = sum(kinds.get(kind, 0) for kind in VECTOR)
        loss.backward()
        backward = count.get_total_flops() - ahead
    rest = ahead - forward.total() - sinkhorn
    return {**forward, "loss": rest, "sinkhorn": sinkhorn, "backward": backward}, passes


def _part(module: nn.Module) -> str | None:
    """The part of a step to which a module's forward passes belong."""
    if isinstance(module, Encoder):
        return "encoder" if any(p.requires_grad for p in module.parameters()) else "target network"
    return {Decoder: "decoder", PrototypeHead: "heads"}.get(type(module))


def _in_chunks(recompute: bool) -> Callable[..., Tensor]:
    """The loss in one chunk; or in two where training needs several, which costs the same as any number of them."""

    def loss(
        student: Tensor, prototypes: Tensor, teacher: Tensor, teacher_prototypes: Tensor, **options: Any
    ) -> Tensor:
        numbers = max(1, len(teacher) * len(teacher_prototypes))
        chunk = numbers // 2 if recompute and numbers > CHUNK else numbers
        return prototype_cross_entropy(student, prototypes, teacher, teacher_prototypes, chunk=chunk, **options)

    return loss


def views_of(method: Method, config: Config) -> dict[str, Batch]:
    """A step's view groups on the meta device, as the sampler makes them, all persons present."""

    def batch(views: int, frames: int) -> Batch:
        shape = (views * config.train.batch, 1 if method.one_person else PERSONS, frames, JOINTS)
        with torch.device("meta"):
            observed, present = (torch.empty(s, dtype=torch.bool) for s in (shape, shape[:2]))
            labels = torch.empty(shape[0], dtype=torch.long) if method.uses_labels else None
            return Batch(torch.empty(*shape, 3), observed, present, views, labels)

    if not method.multi_view:
        return {"clip": batch(1, config.views.frames)}
    crops = {f"local{v.frames}-{i}": batch(2 * v.crops, v.frames) for i, v in enumerate(config.views.locals)}
    return {"global": batch(2, config.views.frames), **crops}


def giga(flops: int | float) -> str:
    """GFLOPs with two decimals, as in the paper, or with two digits where they are few."""
    g = flops / 1e9
    return f"{g:.2f}" if g >= 0.1 else f"{g:.2g}" if g else "-"


def published(config: Config) -> dict[str, str]:
    """The method's row of SLiM's Table 1 (GFLOPs); empty where it has none, or other sizes than the papers'."""
    size = (config.views.frames // config.backbone.patch, JOINTS, config.backbone.width, config.backbone.depth)
    with open(PUBLISHED, newline="") as file:
        for row in csv.DictReader(file):
            known = (int(row["time_patches"]), int(row["joint_patches"]), 256, 8)
            if row["method"].lower() == config.method.name and known == size:
                return row
    return {}


def networks_table(costs: Sequence[MethodCost]) -> Table:
    """One forward pass of each network beside the published FLOPs."""
    rows: list[list[str]] = []
    for i, c in enumerate(costs):
        name, depth, paper = c.config.method.name, c.config.decoder.depth, published(c.config)
        lines = [
            ("encoder, inference", c.inference, "inference_encoder_gflops"),
            ("encoder, training", c.passes.get("encoder"), "training_encoder_gflops"),
            (f"decoder, {depth} blocks", c.passes.get("decoder"), "training_decoder_gflops" if depth == DEPTH else ""),
            ("target network, training", c.passes.get("target network"), "training_tgn_gflops"),
        ]
        if i and costs[i - 1].config.method.name == name:  # the same encoder with another decoder
            lines = lines[2:3]
        for part, one, column in lines:
            if one is not None:
                said = f"{float(paper[column]):.2f}" if paper.get(column) else "-"
                rows.append([name, part, str(one.tokens), giga(one.flops), giga(PERSONS * one.flops), said])
    columns = ["method", "forward pass over one view", "tokens", "one person", "two persons", "published"]
    title = "Networks, GFLOPs, beside SLiM's Table 1 (arXiv 2603.10648)"
    return Table("flops-networks", title, columns, rows, network_notes(costs))


def network_notes(costs: Sequence[MethodCost]) -> list[str]:
    """Why our numbers are not the published ones."""
    known = {c.config.method.name: c for c in costs if published(c.config)}
    mae, slim, notes = known.get("mamp") or known.get("skeletonmae"), known.get("slim"), []
    if mae:
        all_tokens = mae.passes["encoder"].flops + 6 * mae.config.backbone.patch * mae.config.backbone.width * (
            mae.inference.tokens - mae.passes["encoder"].tokens
        )
        notes += [
            "published 28.32, 1.97, 17.70: two persons, a decoder of 5 blocks (MAMP's own NTU-60 runs have 3), and "
            "element-wise operations counted too, in a way that cannot be told from them: 0.6 to 0.9 % more",
            "encoder, training: our patch embedding sees the visible tokens only; embedding all of them makes it "
            f"{giga(PERSONS * all_tokens)}",
        ]
    if slim:
        gated = replace(slim.config.backbone, mlp="swiglu", mlp_hidden=0)
        other = encoder_flops(gated, slim.config.views.frames // gated.patch, JOINTS)
        notes.append(
            "published 3.59: no convention that we tried gives it for the stated configuration, for one person or "
            f"for two; with the released code's SwiGLU for the MLP, ours are {giga(other)} and {giga(PERSONS * other)}"
        )
        if mae:
            ratio, gated_ratio = (mae.inference.flops / f for f in (slim.inference.flops, other))
            notes.append(
                f"like for like, the MAE family's inference costs {ratio:.2f} times SLiM's ({gated_ratio:.2f} with "
                "SwiGLU), not 28.32 / 3.59 = 7.89 times"
            )
    return notes


STEP = {
    "encoder": "student's encoder, all views, forward",
    "decoder": "forward",
    "target network": "teacher's encoder, forward",
    "heads": "MLPs of student and teacher, forward",
    "loss": "prototypes with gradients; KoLeo",
    "sinkhorn": "its weighted sums",
    "backward": "of encoder, decoder and MLPs of heads",
}


def step_table(costs: Sequence[MethodCost]) -> Table:
    """The whole training step of each method, and its schedule."""
    rows = [
        [part, what, *(giga(c.step.get(part, 0) / c.batch) for c in costs)]
        for part, what in STEP.items()
        if any(c.step.get(part) for c in costs)
    ]
    rule = len(rows)
    rows += [
        ["whole step", "GFLOPs a clip", *(giga(c.total / c.batch) for c in costs)],
        ["recomputed", "on top of it, prototypes in chunks", *(giga(c.recomputed / c.batch) for c in costs)],
        ["schedule", "steps", *(f"{c.steps:,}" for c in costs)],
        ["", "clips a step", *(f"{c.batch:,}" for c in costs)],
        ["", "exaFLOPs in all", *(f"{c.total * c.steps / 1e18:.3g}" for c in costs)],
    ]
    notes = []
    if any("decoder" in c.passes for c in costs):
        notes.append("the number after a method's name: blocks of its decoder")
    if not all(method_class(c.config.method.name).one_person for c in costs):
        notes.append(
            "two persons a clip, the most there are (SLiM trains on one); a clip of one person costs half, unless "
            "absent persons are encoded too, as MAMP's authors do and the published count does (method.persons=mamp)"
        )
    if any("epochs" in c.config.train.length for c in costs):
        notes.append(f"an epoch is a pass over the {CLIPS:,} training clips of NTU-60 X-Sub")
    if any("heads" in c.step for c in costs):
        notes.append("hidden tokens: as many as the masking ratio leads one to expect")
    notes.append("backward: twice the forward of each linear map, but the patches themselves need no gradient")
    depths = [f" {c.config.decoder.depth}" if "decoder" in c.passes else "" for c in costs]
    columns = ["part", "what", *(c.config.method.name + depth for c, depth in zip(costs, depths))]
    return Table("flops-step", "Whole training step, GFLOPs a clip", columns, rows, notes, rule)


def chosen(overrides: Sequence[str]) -> list[Config]:
    """The configurations that a command line asks for; where FLOPs were published, at the published depth too.

    Raises:
        BadInput: an unknown key or value.
    """
    given = {o.partition("=")[0] for o in overrides}
    configs = []
    for first in [[]] if "method" in given else [[f"method={name}"] for name in DEFAULT]:
        config = compose([*first, *([] if "scale" in given else ["scale=paper"]), *overrides])
        configs.append(config)
        decodes = "decoder" in method_class(config.method.name).reads
        if decodes and published(config) and "decoder.depth" not in given:
            configs.append(replace(config, decoder=replace(config.decoder, depth=DEPTH)))
    return configs


def main(arguments: Sequence[str]) -> int:
    """Print the tables; returns the exit status."""
    if any(a in ("-h", "--help") for a in arguments):
        print(__doc__)
        return 0
    form = next((a.partition("=")[2] for a in arguments if a.startswith("format=")), "text")
    formats = {"text": as_text, "markdown": FORMATS["md"], "csv": FORMATS["csv"], "latex": FORMATS["tex"]}
    if form not in formats:
        raise unknown("format", form, formats)
    costs = [cost(config) for config in chosen([a for a in arguments if not a.startswith("format=")])]
    trained = [c for c in costs if c.step]
    tables = [networks_table(costs), *([step_table(trained)] if trained else [])]
    if form in ("text", "markdown"):
        print(RULE)
    if form == "text":
        for table in tables:
            table.notes = [line for note in table.notes for line in wrap(note, 118, subsequent_indent="  ")]
    print("\n".join(formats[form](table) for table in tables), end="")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
