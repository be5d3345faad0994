"""FLOPs on the meta device against formulae, and against the published numbers as far as those can be reproduced."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from methods.backbone import Transformer
from methods.decoder import Decoder, DecoderConfig
from methods.encoder import EncoderConfig
from methods.flops import (
    block_flops,
    counted,
    decoder_flops,
    encoder_flops,
    head_flops,
    prototype_flops,
    sinkhorn_flops,
)
from methods.heads import HeadConfig, PrototypeHead
from methods.prototypes import CHUNK, prototype_cross_entropy
from reports import flops
from reports.flops import cost
from reports.formats import as_text
from skeletons.errors import BadInput
from skeletons.topology import KINECT_V1, KINECT_V2, OPENNI, Topology
from sweeps.composing import compose
from sweeps.config import Config

MAMP = EncoderConfig(patch=4, position="learned", class_token=False, registers=0, init="xavier")
ENCODERS = {
    "slim": (EncoderConfig(), KINECT_V2, 64),
    "slim-swiglu": (EncoderConfig(mlp="swiglu"), KINECT_V2, 64),
    "mamp": (MAMP, KINECT_V2, 120),
    "small": (EncoderConfig(width=64, depth=3, heads=4), KINECT_V1, 32),
    "own-hidden-width": (EncoderConfig(width=48, depth=1, heads=3, mlp="swiglu", mlp_hidden=100), OPENNI, 16),
    "registers-only": (EncoderConfig(width=32, depth=2, heads=2, class_token=False, registers=3), KINECT_V2, 8),
    "class-token-only": (EncoderConfig(width=32, depth=2, heads=2, registers=0, patch=2), KINECT_V2, 8),
}
encoders = pytest.mark.parametrize(("config", "topology", "frames"), ENCODERS.values(), ids=ENCODERS)
G = 1e9


@pytest.fixture(scope="module")
def paper() -> dict[str, flops.MethodCost]:
    """What the command counts by default, by method and depth of the decoder."""
    return {f"{c.method.name}-{c.decoder.depth}": cost(c) for c in flops.chosen([])}


def joints_of(sequences: int, frames: int, topology: Topology) -> torch.Tensor:
    return torch.empty(sequences, frames, len(topology), 3, device="meta")


@encoders
def test_encoder_of_all_tokens(config: EncoderConfig, topology: Topology, frames: int):
    encoder, x = Transformer(config, topology, frames, masked=True).to("meta"), joints_of(3, frames, topology)
    times, places = encoder.grid(frames)
    hidden = torch.empty(3, times, places, dtype=torch.bool, device="meta")
    expected = 3 * encoder_flops(config, times, places)
    assert counted(lambda: encoder(x)) == counted(lambda: encoder(x, hidden=hidden)) == expected


@encoders
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_encoder_of_visible_tokens(config: EncoderConfig, topology: Topology, frames: int, share: float):
    encoder, x = Transformer(config, topology, frames).to("meta"), joints_of(3, frames, topology)
    times, places = encoder.grid(frames)
    shown = round(share * times * places)
    visible = torch.empty(3, shown, dtype=torch.long, device="meta")
    assert counted(lambda: encoder(x, visible=visible)) == 3 * encoder_flops(config, times, places, shown)


@pytest.mark.parametrize("config", [DecoderConfig(), DecoderConfig(depth=5), DecoderConfig(48, 2, 3)], ids=str)
@pytest.mark.parametrize(("grid", "visible", "values"), [((30, 25), 74, 12), ((8, 20), 50, 24)])
def test_decoder(config: DecoderConfig, grid: tuple[int, int], visible: int, values: int):
    decoder = Decoder(config, 64, grid, values).to("meta")
    tokens = torch.empty(3, visible, 64, device="meta")
    at = torch.empty(3, visible, dtype=torch.long, device="meta")
    expected = decoder_flops(config, 64, grid[0] * grid[1], visible, values)
    assert counted(lambda: decoder(tokens, at)) == 3 * expected


@pytest.mark.parametrize(
    "config", [HeadConfig(128, 0, 256, 64), HeadConfig(32, 0, 48, 16, 1), HeadConfig(8, 0, 64, 32, 4)]
)
def test_head(config: HeadConfig):
    head = PrototypeHead(40, config).to("meta")
    assert counted(lambda: head(torch.empty(7, 40, device="meta"))) == head_flops(config, 40, 7)


@pytest.mark.parametrize("views", [1, 3])
def test_prototypes(views: int):
    config, rows = HeadConfig(128, 0, 256, 64), 11

    def unit(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, config.bottleneck, device="meta", requires_grad=True)

    def loss() -> None:
        prototype_cross_entropy(
            unit(views, rows), unit(config.prototypes), unit(rows), unit(config.prototypes), iterations=4
        ).backward()

    assert counted(loss) == prototype_flops(config, views * rows, rows) + sinkhorn_flops(config, rows, 4)


def test_mamp_is_the_published_one_without_element_wise_operations(paper):
    mamp, both = paper["mamp-5"], flops.PERSONS
    assert mamp.inference.tokens == 750
    assert both * mamp.inference.flops / G == pytest.approx(28.10, rel=1e-3)
    assert both * mamp.passes["decoder"].flops / G == pytest.approx(17.59, rel=1e-3)
    assert mamp.passes["encoder"].tokens == 74
    assert round(both * mamp.passes["encoder"].flops / G, 2) == 1.95
    everything_embedded = encoder_flops(MAMP, 30, 25, 74) + 2 * (750 - 74) * 12 * 256
    assert round(both * everything_embedded / G, 2) == 1.96


def test_mamp_decoder_of_three_blocks(paper):
    blocks = flops.PERSONS * 3 * block_flops(750, 256, 1024)
    around = flops.PERSONS * 2 * 256 * (74 * 256 + 750 * 12)  # its embedding and its prediction
    assert round(blocks / G, 2) == 10.53
    assert flops.PERSONS * paper["mamp-3"].passes["decoder"].flops == blocks + around


def test_skeletonmae_costs_what_mamp_costs(paper):
    for depth in (3, 5):
        ours, mamp = paper[f"skeletonmae-{depth}"], paper[f"mamp-{depth}"]
        assert (ours.inference, ours.passes, ours.step) == (mamp.inference, mamp.passes, mamp.step)


def test_slim_costs_a_fifth_of_mamp_not_an_eighth(paper):
    slim, mamp = paper["slim-3"], paper["mamp-3"]
    gated = encoder_flops(EncoderConfig(mlp="swiglu"), 8, 25)
    assert EncoderConfig(mlp="swiglu").hidden_width() == 688
    assert slim.inference.tokens == 205
    assert round(slim.inference.flops / G, 3) == 2.926
    assert round(gated / G, 3) == 2.940
    assert slim.inference == slim.passes["encoder"] == slim.passes["target network"]
    assert 4.77 < mamp.inference.flops / gated < mamp.inference.flops / slim.inference.flops < 4.81


def slim_step(config: Config) -> dict[str, int]:
    """SLiM's step by formula, from its description: what each part multiplies."""
    method: Any = config.method
    c, batch, joints = config, config.train.batch, 25
    globals_, patch = 2 * batch, c.backbone.patch
    per_token = 2 * 3 * patch * c.backbone.width
    views = [(globals_ * (1 if method.masked_globals else 2), c.views.frames)]  # masked, and for GLCL not masked
    views += [(globals_ * v.crops, v.frames) for v in c.views.locals]
    encoder = sum(n * encoder_flops(c.backbone, frames // patch, joints) for n, frames in views)
    embedding = sum(n * frames // patch * joints * per_token for n, frames in views)
    tokens = c.views.frames // patch * joints
    hidden = round(globals_ * tokens * sum(c.masking.ratio) / 2)
    compared = globals_ * (1 + sum(v.crops for v in c.views.locals))
    student = head_flops(c.heads, c.backbone.width, hidden + compared)
    koleo = 2 * 2 * batch * batch * c.backbone.width
    return {
        "encoder": encoder,
        "target network": globals_ * encoder_flops(c.backbone, c.views.frames // patch, joints),
        "heads": student + head_flops(c.heads, c.backbone.width, hidden + globals_),
        "loss": prototype_flops(c.heads, hidden + compared, hidden + globals_) + koleo,
        "sinkhorn": sinkhorn_flops(c.heads, hidden + globals_, method.sinkhorn),
        "backward": 2 * (encoder + student) - embedding,  # the patches need no gradient
    }


def mamp_step(config: Config) -> dict[str, int]:
    """A masked autoencoder's step by formula."""
    c, sequences, patch, joints = config, 2 * config.train.batch, config.backbone.patch, 25
    times = c.views.frames // patch
    visible = int(times * joints * (1 - c.masking.ratio))
    encoder = sequences * encoder_flops(c.backbone, times, joints, visible)
    decoder = sequences * decoder_flops(c.decoder, c.backbone.width, times * joints, visible, 3 * patch)
    embedding = sequences * visible * 2 * 3 * patch * c.backbone.width
    return {
        "encoder": encoder,
        "decoder": decoder,
        "loss": 0,
        "sinkhorn": 0,
        "backward": 2 * (encoder + decoder) - embedding,
    }


def test_a_decoder_of_queries_is_counted_as_a_decoder():
    step = cost(compose(["method=amr", "scale=demo"])).step
    assert step["loss"] == 0 < step["decoder"] < step["encoder"] + step["decoder"] < step["backward"]


def test_an_encoder_made_of_two_is_counted_once():
    one, two = (
        cost(compose(["method=skeletonclr", "scale=demo", f"backbone.kind={kind}"])).step
        for kind in ("transformer", "pair")
    )
    assert two["encoder"] == 2 * one["encoder"] and two["loss"] == one["loss"]


def test_steps_at_paper_size(paper):
    assert paper["slim-3"].step == slim_step(paper["slim-3"].config)
    for name in ("mamp-3", "mamp-5"):
        assert paper[name].step == mamp_step(paper[name].config)
    slim = paper["slim-3"]
    assert (slim.steps, slim.batch) == (187_500, 768)
    assert paper["mamp-3"].steps == round(400 * 40_091 / 128)


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=slim", "scale=demo"],
        ["method=slim", "scale=small", "backbone.mlp=swiglu", "train.batch=6"],
        ["method=slim", "scale=demo", "method.masked_globals=true", "method.sinkhorn=1"],
        ["method=slim", "scale=demo", "masking.global_view=motion", "masking.local_view=none"],
    ],
    ids=" ".join,
)
def test_slim_step_by_formula(overrides: list[str]):
    config = compose(overrides)
    assert cost(config).step == slim_step(config)


@pytest.mark.parametrize("overrides", [["method=mamp", "scale=demo"], ["method=skeletonmae", "setting=matched"]])
def test_masked_autoencoder_step_by_formula(overrides: list[str]):
    config = compose(overrides)
    assert cost(config).step == mamp_step(config)


def test_every_trained_method_can_be_counted():
    from methods.base import all_methods

    for name, cls in all_methods().items():
        found = cost(compose([f"method={name}", "scale=demo"]))
        assert found.inference.flops > 0
        assert bool(found.step) == cls.trains


def test_asmas_alignment_is_counted_with_the_heads():
    plain, aligned = (cost(compose(["method=asma", f"method.alignment={on}"])).step for on in ("false", "true"))
    assert aligned["encoder"] == plain["encoder"] and aligned["heads"] > 2 * plain["heads"]
    assert aligned["loss"] < 0.02 * aligned["heads"]  # correlations alone


def test_recomputation_stands_apart(paper):
    slim = paper["slim-3"]
    c, rows = slim.config.heads, 768 * 2 * (140 + 1)  # 70 % of 200 tokens, and the class token
    assert min(768 * 2, 768 * 2 * 140) * c.prototypes > CHUNK
    assert slim.recomputed == slim.config.method.sinkhorn * 2 * rows * c.prototypes * c.bottleneck
    assert cost(compose(["method=slim", "scale=demo"])).recomputed == 0


def test_tables_fit_the_terminal_and_show_both_numbers(paper):
    networks = flops.networks_table(list(paper.values()))
    rows = {(method, part): shown for method, part, _, *shown in networks.rows}
    assert rows["mamp", "encoder, inference"] == ["14.05", "28.10", "28.32"]
    assert rows["mamp", "encoder, training"] == ["0.98", "1.95", "1.97"]
    assert rows["mamp", "decoder, 3 blocks"] == ["5.28", "10.56", "-"]
    assert rows["mamp", "decoder, 5 blocks"] == ["8.79", "17.59", "17.70"]
    assert rows["slim", "encoder, inference"] == ["2.93", "5.85", "3.59"]
    step = as_text(replace(flops.step_table(list(paper.values())), notes=[])).splitlines()
    assert max(map(len, step)) <= 120
    assert "4.80 times SLiM's (4.78 with SwiGLU), not 28.32 / 3.59 = 7.89" in " ".join(networks.notes)


def test_sizes_of_no_paper_have_no_published_numbers():
    assert flops.published(compose(["method=slim", "scale=paper"]))
    for overrides in (["method=slim"], ["method=mamp", "scale=paper", "views.frames=60"], ["method=untrained"]):
        assert flops.published(compose(overrides)) == {}


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "latex"])
def test_command_prints_every_format(form: str, capsys):
    assert flops.main(["method=mamp", "scale=demo", f"format={form}"]) == 0
    out = capsys.readouterr().out
    assert "encoder, inference" in out
    assert "whole step" in out
    assert form != "text" or max(map(len, out.splitlines())) <= 120


def test_bad_input_is_one_line_and_status_2():
    done = subprocess.run(
        [sys.executable, "reports/flops.py", "method=slimm"], cwd=flops.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "did you mean 'slim'" in done.stderr
    with pytest.raises(BadInput, match="format"):
        flops.main(["format=pdf"])
