"""HA-CM's loss against its formulas, and what its pruning leaves."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from methods.base import build
from methods.hacm import cross_contrast
from methods.masking import mask_context
from methods.masking.tokens import visible_tokens
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.topology import KINECT_V1, KINECT_V2, OPENNI, Topology

BODY = Topology(("spine_base", "spine_mid", "head", "hand_left", "hand_right"), (0, 0, 1, 1, 1), "small")
BACKBONE = {"position": "learned", "class_token": False, "registers": 0, "init": "xavier", "norm_eps": 1e-5}


@pytest.fixture
def hacm(parts, reference):
    def make(topology=BODY, **fields):
        torch.manual_seed(0)
        backbone = {**BACKBONE, "embedding": "hyperbolic"}
        masking = {"strategy": "cross", "ratio": 0.5, "tau": 0.9}
        model = build(parts("hacm", topology, **{"backbone": backbone, "masking": masking, **fields}))
        model = model.to(torch.get_default_dtype())
        reference.scramble(model)
        return model

    return make


@pytest.fixture
def clip(batch, hacm):
    made = batch(hacm(), BODY)["clip"]
    made.observed[0, 0, :9, 3:] = False
    return replace(made, joints=made.joints.to(torch.get_default_dtype()))


def in_ball(v: list[float], c: float) -> list[float]:
    n = math.sqrt(c * sum(x * x for x in v))
    return [x * min(math.tanh(n), 1 - 1e-5) / n if n else 0.0 for x in v]


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(x - max(row)) for x in row]
    return [p / sum(powers) for p in powers]


def plain_contrast(tokens: torch.Tensor, even: torch.Tensor) -> float:
    means = []
    for group in (even, ~even, torch.ones_like(even)):
        rows = [x[g].sum(0) / max(1, int(g.sum())) for x, g in zip(tokens, group)]
        means.append(rows)
    total, count = 0.0, len(tokens)
    for a, b in ((0, 2), (1, 2), (0, 1)):
        for i in range(count):
            row = softmax([float(means[a][i] @ means[b][j]) for j in range(count)])
            total += sum((x - (i == j)) ** 2 for j, x in enumerate(row)) / count**2
    return total


def literal(model, clip, draws, reference):
    """(reconstruction, contrast): loops over sequences, tokens and values."""
    c, stay = model.config, [j for j in range(5) if j not in model.removed]
    context = mask_context(clip, 4, BODY, model.ratio, draws, model.encoder.embeddings, model.removed)
    visible, _ = visible_tokens(
        model.masking(context, draws.fork("mask")), model.visible, context, draws.fork("complete")
    )
    persons, errors, outputs, shown = clip.joints.shape[1], [], [], []
    for row, person in clip.present.nonzero().tolist():
        s = row * persons + person
        x, at = clip.joints[row, person], visible[s].tolist()
        embedded = model.encoder.embeddings(x[None])[0].flatten(0, 1)
        width = embedded.shape[1]
        tokens = torch.stack([embedded.new_tensor(in_ball(embedded[i].tolist(), 1.0)) for i in at])
        assert tokens.shape == (model.visible, width)
        for block in model.encoder.blocks:
            tokens = reference.block(block, tokens, [None] * len(at))
        tokens = reference.norm(model.encoder.norm, tokens)
        outputs.append(tokens)
        shown.append([i // 5 % 2 == 0 for i in at])
        places = torch.tensor([i // 5 * len(stay) + stay.index(i % 5) for i in at])
        prediction = reference.decode(model.decoder, tokens[None], places[None])[0]
        for t in range(4):
            for j in stay:
                seen = clip.observed[row, person, 4 * t : 4 * t + 4, j].float().mean() >= 0.5
                if t * 5 + j in at or not seen:
                    continue
                values = []
                for f in range(4 * t, 4 * t + 4):
                    motion = (x[f + 1, j] - x[f, j]).tolist() if f + 1 < len(x) else [0.0] * 3
                    values += in_ball(motion, c.curvature) if c.hyperbolic else motion
                mean = sum(values) / 12
                deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 11 + 1e-6)
                got = prediction[t * len(stay) + stay.index(j)].tolist()
                errors.append(sum((a - (v - mean) / deviation) ** 2 for a, v in zip(got, values)) / 12)
    return sum(errors) / len(errors), plain_contrast(torch.stack(outputs), torch.tensor(shown))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "method",
    [{}, {"prune": False}, {"hyperbolic": False}, {"curvature": 0.4, "contrast_weight": 0.3}],
    ids=lambda m: " ".join(m) or "default",
)
def test_loss_equals_a_literal_loop(method, hacm, clip, reference):
    model = hacm(method=method)
    with torch.no_grad():
        found = model.loss({"clip": clip}, Draws(0, 2))
        reconstruction, contrast = literal(model, clip, Draws(0, 2), reference)
    assert float(found["reconstruction"]) == pytest.approx(reconstruction, rel=1e-11)
    assert float(found["contrast"]) == pytest.approx(contrast, rel=1e-11)
    assert float(found["loss"]) == pytest.approx(reconstruction + model.config.contrast_weight * contrast, rel=1e-11)


def test_cross_contrast_by_formula_and_its_bounds():
    tokens = torch.randn(5, 6, 4, dtype=torch.float64)
    even = torch.rand(5, 6) > 0.5
    even[0] = True  # a sequence without odd tokens
    assert float(cross_contrast(tokens, even)) == pytest.approx(plain_contrast(tokens, even), rel=1e-12)
    apart = (100 * torch.eye(5, dtype=torch.float64))[:, None].expand(5, 6, 5)  # each sequence is like itself alone
    half = torch.arange(6).expand(5, 6) % 2 == 0
    assert float(cross_contrast(apart, half)) == pytest.approx(0, abs=1e-12)
    same = torch.ones(5, 6, 4, dtype=torch.float64)
    assert float(cross_contrast(same, half)) == pytest.approx(3 * (0.2 - 0.04), rel=1e-12)


def test_cross_contrast_is_computed_in_full_precision():
    tokens, even = 3 * torch.randn(5, 6, 32), torch.rand(5, 6) > 0.5
    expected = cross_contrast(tokens, even)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cross_contrast(tokens, even), expected)


def test_without_cross_contrast_the_loss_is_the_reconstruction(hacm, clip):
    found = hacm(method={"cross_contrast": False}).loss({"clip": clip}, Draws(0, 0))
    assert "contrast" not in found and torch.equal(found["loss"], found["reconstruction"])


@pytest.mark.parametrize(
    ("topology", "removed"),
    [
        (KINECT_V2, {0, 1, 4, 8, 12, 16, 20}),  # the release's
        (KINECT_V1, {0, 1, 2, 4, 8, 12, 16}),
        (OPENNI, {1, 2, 3, 6, 9, 12}),
    ],
    ids=lambda t: getattr(t, "name", ""),
)
def test_pruned_joints_are_neither_shown_nor_predicted(topology, removed, hacm, batch):
    model = hacm(topology, masking={"strategy": "cross", "ratio": 0.9})
    assert set(model.removed) == set(topology.inner) == removed
    stay = len(topology) - len(removed)
    assert model.decoder.grid == (4, stay) and model.visible == int(4 * stay * (1 - 0.9))
    clip = batch(model, topology)["clip"]
    seen = model.shown(clip, Draws(0, 0))
    inner = torch.tensor([j in removed for j in range(len(topology))])
    assert not inner[seen.visible % len(topology)].any()
    assert not seen.hidden.unflatten(1, (4, -1))[:, :, inner].any()
    assert float(seen.filled) == 0
    assert model.kept.topology is topology  # the encoder that is judged has the whole body


def test_a_body_without_limbs_is_pruned_of_nothing(hacm):
    body = Topology(("a", "b", "c"), (0, 0, 1))
    assert hacm(body, method={"prune": True}).removed == ()


def test_counts_of_the_paper_size(parts):
    fields = {"backbone": {"patch": 3, "width": 8, "heads": 2, "depth": 1}, "decoder": {"width": 8}}
    views = replace(parts("hacm").views, frames=72)
    model = build(parts("hacm", KINECT_V2, views=views, masking={"strategy": "cross", "ratio": 0.9}, **fields))
    assert model.decoder.grid == (24, 18) and model.visible == 43


@pytest.mark.parametrize("strategy", ["cross", "random", "motion", "tube", "hierarchy", "attention"])
@pytest.mark.parametrize("persons", ["present", "mamp"])
def test_pruning_goes_with_every_strategy(strategy, persons, hacm, clip):
    model = hacm(masking={"strategy": strategy, "ratio": [0.4, 0.7]}, method={"persons": persons})
    seen = model.shown(clip, Draws(0, 1))
    assert not sum((seen.visible % 5 == j).sum() for j in model.removed)
    assert torch.isfinite(model.loss({"clip": clip}, Draws(0, 1))["loss"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": {"curvature": 0.0}}, "method.curvature=0.0 must be positive"),
        ({"backbone": {"patch": 16}}, "compares even with odd time patches"),
    ],
)
def test_bad_settings_are_refused(fields, message, hacm):
    with pytest.raises(BadInput, match=message):
        hacm(**fields)
