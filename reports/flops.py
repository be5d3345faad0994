"""`python reports/flops.py [method=NAME] [format=text|markdown|csv|latex] [SECTION.FIELD=VALUE ...]`: what the methods
cost, as counted here, beside SLiM's Table 1.

Without anything else it shows every method in both settings, and the ratios that papers claim. With `method` or another
setting it counts that (skeletonmae, mamp and slim, where no method is named), network by network. Settings are written
as for sweeps/run.py; scale=paper unless another is given. Nothing is computed: whole training steps run on the meta
device, where tensors have shapes only. `measure=true` measures time and memory on this machine (reports/measuring.py).
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder's own files must not stand in for packages of the same name

from methods.base import method_class
from methods.flops import encoder_flops
from reports.formats import FORMATS, Table, as_text
from skeletons.errors import command, unknown
from sweeps.composing import compose
from sweeps.config import Config
from sweeps.costs import CLIPS, JOINTS, PERSONS, MethodCost, cost

PUBLISHED = ROOT / "reports" / "published" / "flops.csv"
DEFAULT = ("skeletonmae", "mamp", "slim")
RULE = """\
FLOPs = 2 x MAC, of matrix products, convolutions and attention only: norms, GELU, softmax, biases and other
element-wise operations are left out. Counted by torch's FlopCounterMode on the meta device, where whole training steps
run at their full batch, together with the products of a matrix and a vector, which it does not know; analytic formulae
are held to the same numbers by a test. G = 10^9, exa = 10^18; Kinect v2, 25 joints.
"""


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
            if row["method"].lower().replace("-", "") == config.method.name and known == size:
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
            (
                f"decoder, {depth} blocks",
                c.passes.get("decoder"),
                "training_decoder_gflops" if str(depth) == paper.get("decoder_blocks") else "",
            ),
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
            "element-wise operations counted too, in a way that cannot be told from them: 0.4 to 0.8 % more",
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
    "heads": "MLPs of student and teacher, alignment; forward",
    "loss": "of outputs; prototypes with gradients",
    "sinkhorn": "its weighted sums",
    "backward": "of encoder, decoder and heads",
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
    if any("heads" in c.step and method_class(c.config.method.name).accepts for c in costs):
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
        # MAMP's own NTU-60 runs have 3 blocks, the published FLOPs are of 5.
        blocks = int(published(config).get("decoder_blocks") or config.decoder.depth)
        if decodes and blocks != config.decoder.depth and "decoder.depth" not in given:
            configs.append(replace(config, decoder=replace(config.decoder, depth=blocks)))
    return configs


OPTIONS = ("format", "measure", "runs", "keep", "clips", "step_clips")


def main(arguments: Sequence[str]) -> int:
    """Print the tables, or measure; returns the exit status."""
    if any(a in ("-h", "--help") for a in arguments):
        print(__doc__)
        return 0
    given = dict(a.partition("=")[::2] for a in arguments)
    options = {key: given.pop(key) for key in OPTIONS if key in given}
    overrides = [f"{key}={value}" for key, value in given.items()]
    form = options.get("format", "text")
    formats = {"text": as_text, "markdown": FORMATS["md"], "csv": FORMATS["csv"], "latex": FORMATS["tex"]}
    if form not in formats:
        raise unknown("format", form, formats)
    if options.get("measure", "false") not in ("true", "false"):
        raise unknown("measure", options["measure"], ("true", "false"))
    from reports.costs_table import cost_tables  # they stand above this file
    from reports.counting import Costs
    from reports.measuring import asked_for, measure_all

    costs = Costs(Path(options.get("runs", "runs")))
    if options.get("measure") == "true":
        return measure_all(asked_for(given), costs, options)
    if given.keys() <= {"scale"}:
        tables = cost_tables(costs, given.get("scale", "paper"))
    else:
        counted = [cost(config) for config in chosen(overrides)]
        trained = [c for c in counted if c.step]
        tables = [networks_table(counted), *([step_table(trained)] if trained else [])]
        if form in ("text", "markdown"):
            print(RULE)
    if form == "text":
        for table in tables:
            table.notes = [line for note in table.notes for line in wrap(note, 118, subsequent_indent="  ")]
    print("\n".join(formats[form](table) for table in tables), end="")
    return 0


if __name__ == "__main__":
    command(main)
