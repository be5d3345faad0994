"""ASMa: two encoders with complementary maskings, and the pair of them as one encoder."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from methods.aligned import AlignedPair, Pair
from methods.base import build
from methods.checkpoint import load_encoder, save_encoder
from methods.encoder import EncoderConfig, make_encoder
from methods.losses import barlow_twins
from methods.masking.degree import draw_frames, draw_joints, frame_motion
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.topology import KINECT_V1, KINECT_V2, Topology

BODY = Topology(("spine_base", "spine_mid", "head", "hand_left", "hand_right"), (0, 0, 1, 1, 1), "small")
SMALL = EncoderConfig(16, 2, 2, 4, kind="aligned_pair")
MAMP = {"position": "learned", "class_token": False, "registers": 0, "init": "xavier", "norm_eps": 1e-5}

kinds = pytest.mark.parametrize("kind", ["pair", "aligned_pair"])


def scrambled(kind, reference, topology=BODY, frames=16):
    torch.manual_seed(0)
    made = make_encoder(replace(SMALL, kind=kind), topology, frames).to(torch.get_default_dtype())
    reference.scramble(made)
    return made.eval()


# --- the pair


@kinds
def test_a_pair_comes_back_bit_for_bit(kind, reference, tmp_path):
    pair = scrambled(kind, reference)
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, pair)
    back = load_encoder(path)
    assert type(back) is type(pair) and back.config == pair.config and back.config.members == "transformer"
    state, other = pair.state_dict(), back.state_dict()
    assert state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)
    joints = torch.randn(2, 16, 5, 3)
    assert torch.equal(pair(joints).patches, back(joints).patches)


def test_a_pair_is_two_encoders_side_by_side(reference):
    pair = scrambled("pair", reference)
    assert isinstance(pair, Pair) and pair.width == 32 and pair.grid(16) == (4, 5)
    joints = torch.randn(2, 16, 5, 3)
    tokens = pair(joints)
    assert tokens.cls is None
    assert torch.equal(tokens.patches[..., :16], pair.first(joints).patches)
    assert torch.equal(tokens.patches[..., 16:], pair.second(joints).patches)
    assert not torch.equal(tokens.patches[..., :16], tokens.patches[..., 16:])


def attended(across, x, other):
    """Tokens of x after attention to those of `other`, one by one, head by head."""
    width, size = x.shape[1], x.shape[1] // across.heads
    keys = other @ across.key_value.weight[:width].T + across.key_value.bias[:width]
    values = other @ across.key_value.weight[width:].T + across.key_value.bias[width:]
    rows = []
    for token in x:
        query, heads = across.query.weight @ token + across.query.bias, []
        for h in range(across.heads):
            part = slice(h * size, (h + 1) * size)
            weight = torch.exp(keys[:, part] @ query[part] / math.sqrt(size))
            heads.append((weight / weight.sum()) @ values[:, part])
        row = token + across.out.weight @ torch.cat(heads) + across.out.bias
        centred = row - row.mean()
        rows.append(centred / torch.sqrt((centred**2).mean() + across.norm.eps))
    return torch.stack(rows)


@pytest.mark.usefixtures("double")
def test_alignment_is_attention_both_ways(reference):
    pair = scrambled("aligned_pair", reference)
    joints = torch.randn(1, 16, 5, 3)
    with torch.no_grad():
        found = pair(joints).patches[0].flatten(0, 1)
        a, b = (e(joints).patches[0].flatten(0, 1) for e in (pair.first, pair.second))
        expected = torch.cat([attended(pair.to_first, a, b), attended(pair.to_second, b, a)], 1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@kinds
def test_a_pair_serves_another_body_and_bodies_with_joints_removed(kind, reference):
    pair = scrambled(kind, reference, KINECT_V2)
    before = {k: v.clone() for k, v in pair.state_dict().items()}
    other = pair.on(KINECT_V1)
    assert type(other) is type(pair) and other.topology == KINECT_V1 and not other.training
    assert other(torch.randn(2, 16, 20, 3)).patches.shape == (2, 4, 20, 32)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    assert all(torch.equal(before[k], v) for k, v in pair.state_dict().items())
    # The same body: the same encoder.
    joints, keep = torch.randn(2, 16, 25, 3), torch.tensor([0, 3, 4, 20])
    assert torch.equal(pair.on(KINECT_V2)(joints).patches, pair(joints).patches)
    assert pair.encode_joints(joints, keep).patches.shape == (2, 4, 4, 32)
    visible = torch.arange(7).expand(2, -1)
    assert pair(joints, visible=visible).patches.shape == (2, 7, 32)


@kinds
def test_what_a_pair_cannot_do_is_refused(kind, reference):
    with pytest.raises(BadInput, match="takes no mask tokens"):
        make_encoder(replace(SMALL, kind=kind), BODY, 16, masked=True)
    with pytest.raises(BadInput, match="a pair is made of single encoders"):
        make_encoder(replace(SMALL, kind=kind, members=kind), BODY, 16)
    with pytest.raises(BadInput, match="did you mean 'transformer'"):
        make_encoder(replace(SMALL, kind=kind, members="transformr"), BODY, 16)
    with pytest.raises(BadInput, match="takes no mask tokens"):
        scrambled(kind, reference)(torch.randn(1, 16, 5, 3), hidden=torch.zeros(1, 4, 5, dtype=torch.bool))


# --- the method


@pytest.fixture
def asma(parts, reference):
    def make(**method):
        torch.manual_seed(0)
        made = build(parts("asma", BODY, backbone=MAMP, method=method)).to(torch.get_default_dtype())
        reference.scramble(made)
        return made

    return make


@pytest.fixture
def clip(batch, asma):
    made = batch(asma(), BODY)["clip"]
    made.observed[0, 0, :9, 3:] = False
    return replace(made, joints=made.joints.to(torch.get_default_dtype()))


def pooled(tokens, observed, present):
    """Mean over observed tokens, then over persons; tokens (clip, person, patch, joint, width)."""
    rows = []
    for c in range(len(tokens)):
        persons = [tokens[c, p][observed[c, p]].mean(0) for p in range(len(present[c])) if present[c, p]]
        rows.append(torch.stack(persons).mean(0))
    return torch.stack(rows)


@pytest.mark.usefixtures("double")
def test_the_loss_is_the_sum_of_both_encoders_and_the_alignment(asma, clip):
    model, draws = asma(), Draws(0, 3)
    joints, observed, present = (t.chunk(3) for t in (clip.joints, clip.observed, clip.present))
    weight, found = 2e-4 * 6144 / 8, model.loss({"clip": clip}, draws)
    tokens, seen = {}, {}
    for name, encoder, high_degree, high_motion in (
        ("a", model.encoder.first, True, False),
        ("b", model.encoder.second, False, True),
    ):

        def encoded(x, o, keep=None, encoder=encoder):
            flat = x.flatten(0, 1)
            patches = (encoder(flat) if keep is None else encoder.encode_joints(flat, keep)).patches
            kept = o if keep is None else o[..., keep]
            return patches.unflatten(0, x.shape[:2]), kept.unflatten(2, (-1, 4)).double().mean(3) >= 0.5

        _, keep = draw_joints(BODY, 2, high_degree, draws.fork(name, "joints"))
        motion = frame_motion(joints[2], observed[2] & present[2][:, :, None, None])
        frames = draw_frames(motion, 4, high_motion, draws.fork(name, "frames"))
        at = (torch.arange(len(frames))[:, None, None], torch.arange(2)[:, None], frames[:, None])
        inputs = [(joints[0], observed[0]), (joints[1], observed[1], keep), (joints[2][at], observed[2][at])]
        tokens[name], seen[name] = zip(*(encoded(*given) for given in inputs))
        projector = model.projector_a if name == "a" else model.projector_b
        z = [projector(pooled(t, s, p)) for t, s, p in zip(tokens[name], seen[name], present)]
        expected = sum(barlow_twins(z[0], other, weight) for other in z[1:])
        assert float(found[name].detach()) == pytest.approx(float(expected.detach()), rel=1e-10)
    features = []
    for a, b, seen_a, seen_b, p in zip(tokens["a"], tokens["b"], seen["a"], seen["b"], present):
        both = model.encoder.align(a.flatten(0, 1), b.flatten(0, 1))
        both = [x.unflatten(0, a.shape[:2]) for x in both]
        features.append((pooled(both[0], seen_a, p), pooled(both[1], seen_b, p)))
    weight = 2e-4 * 6144 / 16
    expected = sum(
        barlow_twins(features[0][0], features[s][1], weight) + barlow_twins(features[0][1], features[s][0], weight)
        for s in (1, 2)
    )
    assert float(found["alignment"].detach()) == pytest.approx(float(expected.detach()), rel=1e-10)
    total = found["a"] + found["b"] + found["alignment"]
    assert float(found["loss"].detach()) == pytest.approx(float(total.detach()), rel=1e-12)


def test_the_alignment_teaches_the_alignment_only(asma, clip):
    model = asma()
    model.loss({"clip": clip}, Draws(0, 0))["alignment"].backward()
    taught = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
    assert taught == {"to_first", "to_second"}


@pytest.mark.parametrize(("part", "untaught"), [("a", "encoder.second"), ("b", "encoder.first")])
def test_the_two_encoders_share_nothing(part, untaught, asma, clip):
    model = asma()
    model.loss({"clip": clip}, Draws(0, 0))[part].backward()
    assert not [n for n, p in model.named_parameters() if n.startswith(untaught) and p.grad is not None]


def test_without_alignment_the_pair_is_plain(asma, clip):
    model = asma(alignment=False)
    assert type(model.kept) is Pair and type(asma().kept) is AlignedPair
    found = model.loss({"clip": clip}, Draws(0, 0))
    assert set(found) == {"loss", "a", "b"}


def test_the_maskings_are_complementary(asma):
    a, b = asma().masker_a, asma().masker_b
    assert (a.high_degree, a.high_motion) == (True, False)
    assert (b.high_degree, b.high_motion) == (False, True)


def test_the_pairing_is_the_configured_one(asma):
    def pairing(**method):
        made = asma(**method)
        return [(m.high_degree, m.high_motion) for m in (made.masker_a, made.masker_b)]

    assert pairing() == [(True, False), (False, True)]
    assert pairing(first="degree_high_motion_high", second="degree_low_motion_low") == [(True, True), (False, False)]
    with pytest.raises(BadInput, match=r"method\.second 'tube'"):
        asma(second="tube")
