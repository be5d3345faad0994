"""Heads against plain formulas, and the loss."""

from __future__ import annotations

import math

import pytest
import torch

from methods.base import METHODS
from methods.classifier import HEADS, Classifier, MampHead, PooledHead, make_head
from methods.encoder import Encoder, EncoderConfig, make_encoder
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import KINECT_V2

KINDS = ("transformer", "stgcn", "pair", "aligned_pair")
CLASSES = 5


def encoder_of(kind: str = "transformer", **fields) -> Encoder:
    return make_encoder(EncoderConfig(width=16, depth=2, heads=2, patch=4, kind=kind, **fields), KINECT_V2, 8)


def clips(count: int = 3, persons: int = 2) -> Batch:
    """The second person is there in the last clip alone, and a hand is lost in the first."""
    joints = torch.randn(count, persons, 8, 25, 3)
    present = torch.ones(count, persons, dtype=torch.bool)
    present[:-1, 1:] = False
    joints *= present[:, :, None, None, None]
    observed = present[:, :, None, None].expand(joints.shape[:-1]).clone()
    observed[0, 0, :4, 7] = False
    return Batch(joints, observed, present, 1, torch.arange(count) % CLASSES)


def test_mamps_head_is_its_formula():
    encoder, batch = encoder_of().eval(), clips()
    head = MampHead(encoder, CLASSES).eval()
    first, norm, _, last = head.layers
    assert first.weight.shape == (2048, 25 * 16) and last.weight.shape == (CLASSES, 2048)
    assert head.dropout.p == 0.3 and norm.affine
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.normal_()
        found = head(encoder, batch)
        for row in range(3):
            clip = torch.zeros(25 * 16)
            for person in range(2):  # absent ones too
                tokens = encoder(batch.joints[row, person][None]).patches[0]
                for joint in range(25):
                    clip[16 * joint : 16 * joint + 16] += sum(tokens[t, joint] for t in range(2)) / 2 / 2
            x = first.weight @ clip + first.bias
            x = (x - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias
            expected = last.weight @ x.clamp(min=0) + last.bias
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


def test_mamps_dropout_falls_on_tokens():
    encoder, batch = encoder_of().eval(), clips()
    head = MampHead(encoder, CLASSES)
    head.layers.eval()
    with torch.no_grad():
        tokens = head.dropout(torch.ones(4, 2, 25, 16))
        assert 0.25 < float((tokens == 0).float().mean()) < 0.35
        assert torch.allclose(tokens[tokens != 0], torch.tensor(1 / 0.7))
        assert not torch.equal(head(encoder, batch), head(encoder, batch))


def test_slims_head_sums_class_token_and_mean_over_present_persons():
    encoder, batch = encoder_of().eval(), clips()
    head = make_head("slim", encoder, CLASSES)
    assert isinstance(head, PooledHead) and head.linear.weight.shape == (CLASSES, 32) and not head.linear.bias.any()
    wide = make_head("slim", encoder_of(), 1000)
    assert float(wide.linear.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    with torch.no_grad():
        found = head(encoder, batch)
        for row in range(3):
            clip = torch.zeros(32)
            for person in range(1 + (row == 2)):
                tokens = encoder(batch.joints[row, person][None])
                kept = [tokens.patches[0, t, j] for t in range(2) for j in range(25) if (row, t, j) != (0, 0, 7)]
                clip += torch.cat([tokens.cls[0], sum(kept) / len(kept)])
            torch.testing.assert_close(found[row], head.linear.weight @ clip, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HEADS)
def test_every_head_fits_every_kind_of_encoder_and_both_learn(kind, name):
    encoder = encoder_of(kind)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    head = make_head(name, encoder, CLASSES)
    assert encoder.training and all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
    model = Classifier(encoder, head, 0.1)
    found = model.loss({"clip": clips()}, Draws(0, 0))
    found["loss"].backward()
    assert model.logits(clips()).shape == (3, CLASSES)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.kept is encoder


def test_the_class_token_is_missing_where_an_encoder_has_none():
    assert make_head("slim", encoder_of(class_token=False), CLASSES).linear.in_features == 16
    assert make_head("slim", encoder_of("pair"), CLASSES).linear.in_features == 32  # of two encoders' patches


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_smoothed_cross_entropy(smoothing):
    encoder, batch = encoder_of().eval(), clips()
    model = Classifier(encoder, make_head("linear", encoder, CLASSES), smoothing)
    with torch.no_grad():
        model.head.linear.weight.mul_(5)
        logits, found = model.logits(batch), model.loss({"clip": batch}, Draws(0, 0))
    expected = 0.0
    for row, label in zip(logits.tolist(), batch.labels.tolist()):
        total = math.log(sum(math.exp(v) for v in row))
        for c, value in enumerate(row):
            weight = smoothing / CLASSES + (1 - smoothing) * (c == label)
            expected += weight * (total - value) / 3
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)
    right = [max(range(CLASSES), key=row.__getitem__) == y for row, y in zip(logits.tolist(), batch.labels.tolist())]
    assert float(found["accuracy"]) == pytest.approx(sum(right) / 3)


def test_it_is_no_method_with_a_name():
    assert Classifier not in METHODS.values() and Classifier.uses_labels
    with pytest.raises(BadInput, match="unknown head 'linaer'; did you mean 'linear'"):
        make_head("linaer", encoder_of(), 3)
