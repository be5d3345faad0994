"""S-JEPA against its formulas, written out token by token; its view, its target encoder and its centre."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from methods.base import build
from methods.masking import mask_context
from methods.masking.tokens import visible_tokens
from methods.sjepa import GeometricView, SJepaConfig
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.streams import as_stream
from skeletons.topology import KINECT_V2, Topology

BODY = Topology(("spine_base", "spine_mid", "head", "hand_left", "hand_right"), (0, 0, 1, 1, 1), "small")
MAMP = {"position": "learned", "class_token": False, "registers": 0, "init": "xavier", "norm_eps": 1e-5}
STILL = {"rotation": 0.0, "translation": 0.0, "mirror": 0.0}


@pytest.fixture
def sjepa(parts, reference):
    """Makes an S-JEPA whose two encoders have different, large weights, and whose centre is not 0."""

    def make(topology=BODY, **fields):
        torch.manual_seed(0)
        masking = {"strategy": "motion", "ratio": 0.7}
        model = build(parts("sjepa", topology, **{"backbone": MAMP, "masking": masking, **fields}))
        model = model.to(torch.get_default_dtype())
        reference.scramble(model, 1)
        reference.scramble(model.target_encoder, 2)
        model.centre.normal_(std=0.3, generator=torch.Generator().manual_seed(3))
        return model

    return make


@pytest.fixture
def clip(batch, sjepa):
    """Views of six clips, two of them with two persons; some tokens are not observed."""
    made = batch(sjepa(), BODY)["clip"]
    made.observed[0, 0, :9, 3] = False
    return replace(made, joints=made.joints.to(torch.get_default_dtype()))


def literal(model, clip, draws, reference):
    """Loss, its number of tokens, and the mean of its targets, from one token at a time."""
    c, width = model.config, model.encoder.width
    view = model.view(clip, draws.fork("view"))
    context = mask_context(view, 4, BODY, model.ratio, draws)
    mask = model.masking(context, draws.fork("mask"))
    visible, _ = visible_tokens(mask, model.visible, context, draws.fork("complete"))
    persons, errors, targets = clip.joints.shape[1], [], []
    for row, person in clip.present.nonzero().tolist():
        s = row * persons + person
        at = visible[s : s + 1]
        tokens = reference.encode(model.encoder, view.joints[row, person][None], visible=at)[:, model.encoder.extra :]
        prediction = reference.decode(model.predictor, tokens, at)[0]
        target = reference.encode(model.target_encoder, clip.joints[row, person][None])[0, model.encoder.extra :]
        for t in range(4):
            for j in range(5):
                seen = clip.observed[row, person, 4 * t : 4 * t + 4, j].float().mean() >= 0.5
                if t * 5 + j in at[0].tolist() or not seen:
                    continue
                f, p = target[t * 5 + j], prediction[t * 5 + j].tolist()
                raised = [math.exp(float(f[i] - model.centre[i]) / 0.06) for i in range(width)]
                total = sum(math.exp(v / 0.1) for v in p)
                errors.append(-sum(r / sum(raised) * (v / 0.1 - math.log(total)) for r, v in zip(raised, p)))
                targets.append(f)
    assert c.prediction_temperature == 0.1 and c.target_temperature == 0.06
    return sum(errors) / len(errors), len(errors), sum(targets) / len(targets)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("backbone", [MAMP, {"registers": 2}], ids=["mamp", "matched"])
def test_loss_equals_a_literal_loop_over_tokens(backbone, sjepa, clip, reference):
    model = sjepa(backbone=backbone)
    before = model.centre.clone()
    with torch.no_grad():
        found = model.loss({"clip": clip}, Draws(0, 2))
        expected, count, mean = literal(model, clip, Draws(0, 2), reference)
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-12)
    assert float(found["masked"]) == pytest.approx(count / (int(clip.present.sum()) * 20))
    assert count < int(clip.present.sum()) * (20 - model.visible)  # the unobserved are no targets
    assert 0 < found["target_entropy"] < found["loss"]
    assert torch.equal(model.centre, before)  # it moves after the step
    model.after_step(0.5)
    torch.testing.assert_close(model.centre, 0.9 * before + 0.1 * mean, rtol=1e-12, atol=1e-14)


def test_with_nothing_to_predict_the_centre_stays(sjepa, clip):
    model = sjepa()
    before = model.centre.clone()
    found = model.loss({"clip": replace(clip, observed=torch.zeros_like(clip.observed))}, Draws(0, 0))
    model.after_step(0.5)
    assert found["loss"] == 0 and torch.equal(model.centre, before)


def test_the_target_encoder_sees_the_whole_clip_and_the_other_what_is_visible_of_a_copy(sjepa, clip):
    model, seen = sjepa(), []
    for encoder in (model.encoder, model.target_encoder):
        encoder.embed.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model.loss({"clip": clip}, Draws(0, 0))
    tokens, full = seen
    persons = clip.joints[clip.present]
    assert tokens.shape == (len(persons), model.visible, 12)
    whole = persons.unflatten(1, (4, 4)).transpose(2, 3).reshape(len(persons), 20, 12)
    assert torch.equal(full, whole)
    near = (tokens[:, :, None] - whole[:, None]).abs().amax(-1)
    assert (near > 1e-3).all()  # every token was turned and shifted
    model, seen[:] = sjepa(method=STILL), []
    model.encoder.embed.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model.loss({"clip": clip}, Draws(0, 0))
    near = (seen[0][:, :, None] - whole[:, None]).abs().amax(-1)
    assert (near.amin(-1) < 1e-6).all()


def test_the_view_moves_bodies_as_they_are(clip):
    view = GeometricView(SJepaConfig(mirror=0.0), BODY)(clip, Draws(0, 0))
    before, after = (c.joints.flatten(1, 3) for c in (clip, view))
    assert torch.equal(view.observed, clip.observed) and torch.equal(view.present, clip.present)
    torch.testing.assert_close(torch.cdist(after, after), torch.cdist(before, before), atol=2e-3, rtol=0)
    assert not torch.allclose(after, before, atol=0.05)
    origin = GeometricView(SJepaConfig(mirror=0.0), BODY)(replace(clip, joints=0 * clip.joints), Draws(0, 0)).joints
    assert (origin.abs() <= 0.1).all() and (origin == origin[:, :1, :1, :1]).all()
    assert len({float(row[0, 0, 0, 0]) for row in origin}) == len(clip)  # every clip has its own shift
    turned = GeometricView(SJepaConfig(mirror=0.0, translation=0.0), BODY)(clip, Draws(0, 0)).joints
    length = turned.norm(dim=-1)
    torch.testing.assert_close(length, clip.joints.norm(dim=-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stream", ["bone", "motion"])
def test_bones_and_motion_do_not_feel_the_copys_shift(stream, sjepa, batch, bodies):
    clips = bodies(BODY)
    joints = batch(sjepa(), BODY, clips=clips)["clip"]
    given = batch(sjepa(), BODY, clips=replace(clips, stream=stream))["clip"]
    shifted = GeometricView(SJepaConfig(rotation=0.0, mirror=0.0), BODY)(given, Draws(0, 0))
    assert not torch.allclose(shifted.joints, given.joints, atol=0.01)
    moved, plain = shifted.in_stream(BODY), given.in_stream(BODY)
    torch.testing.assert_close(moved.joints, plain.joints, atol=1e-6, rtol=0)
    assert torch.equal(moved.observed, plain.observed)
    assert torch.equal(plain.joints, as_stream(stream, joints.joints, joints.observed, BODY)[0])

    model, seen = sjepa(method={**STILL, "translation": 0.1}), []
    for encoder in (model.encoder, model.target_encoder):
        encoder.embed.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model.loss({"clip": given}, Draws(0, 0))
    tokens, full = seen
    whole = plain.joints[plain.present].unflatten(1, (4, 4)).transpose(2, 3).reshape(-1, 20, 12)
    assert torch.equal(full, whole)
    near = (tokens[:, :, None] - whole[:, None]).abs().amax(-1).amin(-1)
    assert (near < 1e-6).all()  # both encoders see the stream


def test_mirroring_swaps_sides_and_what_was_seen_of_them(clip):
    only = {"rotation": 0.0, "translation": 0.0}
    view = GeometricView(SJepaConfig(mirror=1.0, **only), BODY)(clip, Draws(0, 0))
    twin = [0, 1, 2, 4, 3]
    expected = clip.joints[..., twin, :] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(view.joints, expected)
    assert torch.equal(view.observed, clip.observed[..., twin]) and not torch.equal(view.observed, clip.observed)
    some = GeometricView(SJepaConfig(mirror=0.5, **only), BODY)(clip, Draws(0, 1)).joints
    same = (some - clip.joints).flatten(1).abs().amax(1) < 1e-6
    other = (some - expected).flatten(1).abs().amax(1) < 1e-6
    assert (same ^ other).all() and same.any() and other.any()
    kept = GeometricView(SJepaConfig(mirror=1.0, **only), BODY, chiral=True)(clip, Draws(0, 0))
    torch.testing.assert_close(kept.joints, clip.joints)


def test_a_token_is_a_target_where_the_clip_itself_was_observed(sjepa, clip):
    """Mirroring moves what was lost to the other hand of the copy, but targets come from the clip."""
    lost = clip.observed.clone()
    lost[:] = True
    lost[..., 3] = False  # the left hand, always
    model = sjepa(method={**STILL, "mirror": 1.0})
    found = model.loss({"clip": replace(clip, observed=lost)}, Draws(0, 0))["masked"]
    # In the copy the right hand is lost and so never visible; of the 16 tokens of the other joints and the left hand
    # in the copy 6 are visible. The left hand's are no targets.
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, args, given: seen.append(given["visible"]), with_kwargs=True)
    model.loss({"clip": replace(clip, observed=lost)}, Draws(0, 0))
    visible = seen[0]
    assert not (visible % 5 == 4).any() and (visible % 5 == 3).any()
    expected = 16 - (visible % 5 != 3).sum(1)
    assert float(found) == pytest.approx(float(expected.float().mean()) / 20)


def test_the_kept_encoder_follows_the_other(sjepa):
    model = sjepa(teacher={"momentum": 0.9})
    before = [p.clone() for p in model.target_encoder.parameters()]
    now = [p.clone() for p in model.encoder.parameters()]
    model.after_step(0.5)  # half of the cosine: 0.95
    for old, student, p in zip(before, now, model.kept.parameters()):
        torch.testing.assert_close(p, 0.95 * old + 0.05 * student)
    held = [p.clone() for p in model.kept.parameters()]
    model.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(held, model.kept.parameters()))
    assert model.kept is model.target_encoder


def test_at_the_start_both_encoders_are_one_and_no_dropout_touches_targets(parts):
    model = build(parts("sjepa", KINECT_V2, backbone={"drop_path": 0.5})).train()
    assert all(torch.equal(a, b) for a, b in zip(model.encoder.parameters(), model.kept.parameters()))
    assert model.encoder.training and not model.kept.training


def test_the_centre_survives_a_resume(sjepa):
    model, other = sjepa(), sjepa()
    other.centre.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.centre, other.centre) and model.centre.any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_temperature": 0.0}, "method.target_temperature=0.0 must be positive"),
        ({"prediction_temperature": -1.0}, "method.prediction_temperature"),
        ({"mirror": 1.5}, "method.mirror=1.5 is a probability"),
        ({"centre_momentum": 1.0}, "method.centre_momentum=1.0"),
        ({"rotation": -0.1}, "method.rotation=-0.1 must not be negative"),
        ({"translation": -0.1}, "method.translation"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, message, parts):
    with pytest.raises(BadInput, match=message):
        build(parts("sjepa", method=fields))
