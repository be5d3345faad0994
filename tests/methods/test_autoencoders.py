"""The masked autoencoders against their formulas, written out token by token."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from methods.base import build
from methods.masking import mask_context
from methods.masking.tokens import visible_tokens
from skeletons.randomness import Draws
from skeletons.topology import Topology

BODY = Topology(("spine_base", "spine_mid", "head", "hand_left", "hand_right"), (0, 0, 1, 1, 1), "small")
MAMP = {"position": "learned", "class_token": False, "registers": 0, "init": "xavier", "norm_eps": 1e-5}
STRATEGY = {"skeletonmae": "random", "mamp": "motion"}

both = pytest.mark.parametrize("name", ["skeletonmae", "mamp"])


@pytest.fixture
def autoencoder(parts, reference):
    def make(name, **fields):
        torch.manual_seed(0)
        masking = {"strategy": STRATEGY[name], "ratio": 0.7}
        model = build(parts(name, BODY, **{"backbone": MAMP, "masking": masking, **fields}))
        model = model.to(torch.get_default_dtype())
        reference.scramble(model)
        return model

    return make


@pytest.fixture
def clip(batch, autoencoder):
    """Views of six clips, two of them with two persons; some tokens are not observed."""
    made = batch(autoencoder("mamp"), BODY)["clip"]
    made.observed[0, 0, :9, 3:] = False
    return replace(made, joints=made.joints.to(torch.get_default_dtype()))


def literal(model, clip, draws, reference, target):
    """Masked mean of squared errors; returns it and how many tokens it is taken over."""
    context = mask_context(clip, 4, BODY, model.ratio, draws)
    mask = model.masking(context, draws.fork("mask"))
    visible, _ = visible_tokens(mask, model.visible, context, draws.fork("complete"))
    persons = clip.joints.shape[1]
    errors = []
    for row, person in clip.present.nonzero().tolist():
        s = row * persons + person
        x = clip.joints[row, person]
        tokens = reference.encode(model.encoder, x[None], visible=visible[s : s + 1])[:, model.encoder.extra :]
        prediction = reference.decode(model.decoder, tokens, visible[s : s + 1])[0]
        for t in range(4):
            for j in range(5):
                seen = clip.observed[row, person, 4 * t : 4 * t + 4, j].float().mean() >= 0.5
                if t * 5 + j in visible[s].tolist() or not seen:
                    continue
                values = [float(target(x, 4 * t + f, j, axis)) for f in range(4) for axis in range(3)]
                if model.config.normalise:
                    mean = sum(values) / 12
                    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 11 + 1e-6)
                    values = [(v - mean) / deviation for v in values]
                got = prediction[t * 5 + j].tolist()
                errors.append(sum((a - b) ** 2 for a, b in zip(got, values)) / 12)
    return sum(errors) / len(errors), len(errors)


def coordinate(x, frame, joint, axis):
    return x[frame, joint, axis]


def motion(x, frame, joint, axis):
    return x[frame + 1, joint, axis] - x[frame, joint, axis] if frame + 1 < len(x) else 0.0


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("name", "target"), [("skeletonmae", coordinate), ("mamp", motion)])
@pytest.mark.parametrize("backbone", [MAMP, {"registers": 2}], ids=["mamp", "matched"])
def test_loss_equals_a_literal_loop_over_tokens(name, target, normalise, backbone, autoencoder, clip, reference):
    model = autoencoder(name, backbone=backbone, method={"normalise": normalise})
    with torch.no_grad():
        found = model.loss({"clip": clip}, Draws(0, 2))
        expected, count = literal(model, clip, Draws(0, 2), reference, target)
    assert float(found["loss"]) == pytest.approx(expected, abs=1e-9)
    assert float(found["masked"]) == pytest.approx(count / (int(clip.present.sum()) * 20))
    assert count < int(clip.present.sum()) * (20 - model.visible)  # the unobserved do not count


@pytest.mark.parametrize("stride", [1, 3])
def test_mamps_target_is_the_motion_ahead_and_zero_at_the_end(stride, autoencoder):
    model = autoencoder("mamp", method={"stride": stride})
    x = torch.randn(2, 16, 5, 3)
    target = model.target(x)
    assert target.shape == x.shape and (target[:, -stride:] == 0).all()
    for t in range(16 - stride):
        assert torch.equal(target[:, t], x[:, t + stride] - x[:, t])


@both
def test_the_encoder_sees_visible_tokens_only(name, autoencoder, clip):
    model = autoencoder(name, method={"normalise": False})
    seen = []
    model.encoder.embed.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model.loss({"clip": clip}, Draws(0, 0))
    (tokens,) = seen
    assert tokens.shape == (int(clip.present.sum()), model.visible, 12)
    assert model.visible == int(20 * (1 - 0.7))


@pytest.mark.parametrize("name", ["skeletonmae", "amr"])
def test_the_decoder_takes_tokens_as_wide_as_the_encoders_are(name, parts, batch):
    model = build(parts(name, backbone={"kind": "pair", "class_token": False, "registers": 0}))
    assert model.decoder.embed.in_features == model.encoder.width == 32
    assert torch.isfinite(model.loss(batch(model), Draws(0, 0))["loss"])


@pytest.mark.parametrize(("ratio", "visible"), [(0.9, 1), ([0.5, 0.9], 6), (0.5, 10)])
def test_as_many_tokens_are_visible_as_the_mean_ratio_says(ratio, visible, autoencoder):
    assert autoencoder("skeletonmae", masking={"strategy": "random", "ratio": ratio}).visible == visible
