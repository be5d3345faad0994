"""AMR's loss and guidance against their formulas, and its decoder."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from methods.amr import QueryDecoder, guidance_weights, motion_energy, nearest_divisor
from methods.base import build
from methods.decoder import DecoderConfig
from methods.flops import counted
from methods.masking import mask_context
from methods.masking.tokens import visible_tokens
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.topology import Topology

BODY = Topology(("spine_base", "spine_mid", "head", "hand_left", "hand_right"), (0, 0, 1, 1, 1), "small")
BACKBONE = {"position": "learned", "class_token": False, "registers": 0, "init": "xavier", "norm_eps": 1e-5}


@pytest.fixture
def amr(parts, reference):
    def make(**fields):
        torch.manual_seed(0)
        fields = {"backbone": BACKBONE, "masking": {"strategy": "random", "ratio": 0.7}, "method": {}, **fields}
        fields["method"] = {"growth": 0.5, **fields["method"]}
        model = build(parts("amr", BODY, **fields)).to(torch.get_default_dtype())
        reference.scramble(model)
        return model

    return make


@pytest.fixture
def clip(batch, amr):
    """Two views with other numbers of persons; some of the larger patches are not observed."""
    made = batch(amr(), BODY)["clip"]
    made.observed[0, 0, :6, 3:] = False
    return replace(made, joints=made.joints.to(torch.get_default_dtype()))


def plain_weights(x: torch.Tensor, windows, k: float, eps: float) -> torch.Tensor:
    """W (time, joint) of one sequence, by loops."""
    times, joints = x.shape[:2]
    found = torch.zeros(times, joints, dtype=x.dtype)
    for n in windows:
        energy = torch.zeros(times, joints, dtype=x.dtype)
        for t in range(times):
            frames = [f for f in range(t - n // 2, t + n // 2) if 0 <= f < times]
            for j in range(joints):
                mu = sum(x[f, j] for f in frames) / len(frames)
                energy[t, j] = sum(float(((x[f, j] - mu) ** 2).sum()) for f in frames) / len(frames)
        whole = float(energy.sum()) / energy.numel()
        for t in range(times):
            for j in range(joints):
                found[t, j] += 1 / (1 + k * whole / (float(energy[t, j]) + eps)) / len(windows)
    return found


def plain_decode(reference, decoder: QueryDecoder, tokens: torch.Tensor) -> torch.Tensor:
    """Predictions (query, value) of one sequence, by loops over queries and heads."""
    tokens = reference.linear(decoder.embed, tokens)
    x = torch.stack([decoder.time[t, 0] + decoder.joint[0, j] for t, j in grid(decoder)])
    for layer in decoder.layers:
        a = layer.attention
        width = x.shape[1]
        size = width // a.heads
        q = reference.linear(a.q, reference.norm(layer.norm1, x))
        kv = reference.linear(a.kv, reference.norm(layer.norm_tokens, tokens))
        out = []
        for row in q:
            heads = []
            for h in range(a.heads):
                part = slice(h * size, (h + 1) * size)
                weight = torch.exp(kv[:, :width][:, part] @ row[part] / math.sqrt(size))
                heads.append(weight / weight.sum() @ kv[:, width:][:, part])
            out.append(torch.cat(heads))
        x = x + reference.linear(a.out, torch.stack(out))
        up = reference.linear(layer.mlp.up, reference.norm(layer.norm2, x))
        x = x + reference.linear(layer.mlp.down, up * (1 + torch.erf(up / math.sqrt(2))) / 2)
    return reference.linear(decoder.predict, reference.norm(decoder.norm, x))


def grid(decoder: QueryDecoder) -> list[tuple[int, int]]:
    return [(t, j) for t in range(decoder.grid[0]) for j in range(decoder.grid[1])]


def literal(model, clip, draws, reference) -> float:
    c, errors, frames = model.config, [], 4 * model.patches
    context = mask_context(clip, 4, BODY, model.ratio, draws)
    mask = model.masking(context, draws.fork("mask"))
    visible, _ = visible_tokens(mask, model.visible, context, draws.fork("complete"))
    for row, person in clip.present.nonzero().tolist():
        s, x = row * clip.joints.shape[1] + person, clip.joints[row, person]
        tokens = reference.encode(model.encoder, x[None], visible=visible[s : s + 1])[0]
        prediction = plain_decode(reference, model.decoder, tokens)
        weight = plain_weights(x, c.windows, c.k, c.eps) if c.guidance else torch.ones_like(x[..., 0])
        for i, (t, j) in enumerate(grid(model.decoder)):
            inside = range(frames * t, frames * (t + 1))
            if sum(bool(clip.observed[row, person, f, j]) for f in inside) < frames / 2:
                continue
            values = []
            for f in inside:
                motion = x[f + 1, j] - x[f, j] if f + 1 < len(x) else torch.zeros(3)
                values += (x[f, j] if c.target == "joints" else motion).tolist()
            if c.normalise:
                mean = sum(values) / len(values)
                deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) + 1e-6)
                values = [(v - mean) / deviation for v in values]
            weights = [float(weight[f, j]) for f in inside for _ in range(3)]
            got = prediction[i].tolist()
            errors.append(sum(w * (a - b) ** 2 for w, a, b in zip(weights, got, values)) / len(values))
    assert len(errors) < int(clip.present.sum()) * len(grid(model.decoder))  # the unobserved are no targets
    return sum(errors) / len(errors)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "method",
    [{}, {"guidance": False}, {"target": "joints"}, {"normalise": False}, {"growth": 0.25}, {"k": 3.0, "windows": [6]}],
    ids=lambda m: " ".join(m) or "default",
)
def test_loss_equals_a_literal_loop(method, amr, clip, reference):
    model = amr(method=method, decoder={"depth": 2})
    with torch.no_grad():
        found = model.loss({"clip": clip}, Draws(0, 2))["loss"]
        assert float(found) == pytest.approx(literal(model, clip, Draws(0, 2), reference), rel=1e-11)


@pytest.mark.parametrize("times", [32, 10, 3])
def test_guidance_weights_by_formula(times):
    x = torch.randn(2, times, 4, 3, dtype=torch.float64).cumsum(1) * torch.tensor([0.0, 0.01, 0.1, 1.0])[:, None]
    found = guidance_weights(x + 5, (4, 8, 12), 0.01, 1e-8)
    expected = torch.stack([plain_weights(one, (4, 8, 12), 0.01, 1e-8) for one in x])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert (found > 0).all() and (found <= 1).all()
    assert (found.mean((0, 1)).diff() > 0).all()  # more motion, more weight


def test_guidance_in_single_precision_is_that_in_double():
    x = torch.randn(4, 32, 25, 3, dtype=torch.float64).cumsum(1) * 0.01 + 2
    x[:, :, :5] = 1.5 + 1e-3 * torch.randn(4, 32, 5, 3, dtype=torch.float64)
    single, double = (guidance_weights(v, (4, 8, 12), 0.01, 1e-8).double() for v in (x.float(), x))
    assert (single - double).abs().max() < 1e-3


def test_energy_does_not_see_place_or_orientation():
    x = torch.randn(2, 20, 5, 3, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    torch.testing.assert_close(motion_energy(x @ turn + 3, 8), motion_energy(x, 8))
    scaled = guidance_weights(10 * x, (4, 8), 0.01, 1e-12)
    torch.testing.assert_close(scaled, guidance_weights(x, (4, 8), 0.01, 1e-12))


def test_who_stands_still_weighs_alike():
    weight = guidance_weights(torch.ones(1, 8, 5, 3), (4,), 0.01, 1e-8)
    assert (weight == 1).all()


@pytest.mark.parametrize(
    ("tokens", "growth", "patches"),
    [(30, 0.2, 6), (30, 0.1, 3), (30, 1.0, 30), (8, 0.2, 2), (4, 0.2, 1), (4, 0.5, 2), (10, 0.2, 2), (1, 0.2, 1)],
)
def test_patches_grow_by_the_nearest_divisor(tokens, growth, patches):
    assert nearest_divisor(tokens, growth * tokens) == patches


def test_of_two_divisors_as_near_the_larger():
    assert nearest_divisor(8, 3.0) == 4


def test_the_papers_decoder_has_125_queries_of_72_values():
    decoder = QueryDecoder(DecoderConfig(256, 5, 8), 256, (5, 25), 72).to("meta")
    assert decoder(torch.empty(2, 74, 256, device="meta")).shape == (2, 125, 72)
    layers = counted(lambda: _layers(decoder))
    assert layers / 1e9 / 5 == pytest.approx(0.385, abs=0.001)  # GFLOPs a layer for two persons, as counted in facts


def _layers(decoder: QueryDecoder) -> torch.Tensor:
    x, tokens = torch.empty(2, 125, 256, device="meta"), torch.empty(2, 74, 256, device="meta")
    for layer in decoder.layers:
        x = layer(x, tokens)
    return x


def test_between_layers_the_decoder_is_in_full_precision_under_autocast():
    torch.manual_seed(0)
    decoder, seen = QueryDecoder(DecoderConfig(16, 2, 2), 16, (2, 5), 6), []
    for layer in decoder.layers:
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        decoder(torch.randn(3, 4, 16))
    assert seen == [torch.float32] * 2


def test_queries_do_not_see_each_other():
    torch.manual_seed(0)
    decoder = QueryDecoder(DecoderConfig(16, 2, 2), 16, (2, 5), 6)
    tokens = torch.randn(3, 4, 16)
    before = decoder(tokens).unflatten(1, (2, 5))
    with torch.no_grad():
        decoder.joint[0, 3] += 1
    after = decoder(tokens).unflatten(1, (2, 5))
    same = [0, 1, 2, 4]
    assert torch.equal(before[:, :, same], after[:, :, same]) and not torch.allclose(before[:, :, 3], after[:, :, 3])


def test_the_order_of_visible_tokens_does_not_matter():
    decoder = QueryDecoder(DecoderConfig(16, 2, 2), 16, (2, 5), 6).double()
    tokens = torch.randn(3, 4, 16, dtype=torch.float64)
    torch.testing.assert_close(decoder(tokens), decoder(tokens.flip(1)))


def test_absent_persons_count_where_mamps_habit_is_asked_for(amr, clip):
    habit = amr(method={"persons": "mamp"}).loss({"clip": clip}, Draws(0, 0))["loss"]
    assert torch.isfinite(habit) and not torch.equal(habit, amr().loss({"clip": clip}, Draws(0, 0))["loss"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": {"target": "joint"}}, "did you mean 'joints'"),
        ({"method": {"growth": 0.0}}, "method.growth=0.0 must be a share"),
        ({"method": {"growth": 6.0}}, "method.growth=6.0 must be a share"),
        ({"method": {"windows": []}}, "method.windows=.. must be even"),
        ({"method": {"windows": [4, 5]}}, "must be even numbers"),
        ({"method": {"k": -1.0}}, "method.k=-1.0"),
        ({"method": {"eps": 0.0}}, "method.eps=0.0"),
        ({"decoder": {"width": 15}}, "decoder.width=15"),
        ({"masking": {"strategy": "none"}}, "amr has no loss without hidden tokens"),
    ],
)
def test_bad_settings_are_refused(fields, message, amr):
    with pytest.raises(BadInput, match=message):
        amr(**fields)
