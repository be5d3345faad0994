"""SkeletonCLR and AimCLR against the published formulas in loops; the queue, the key network, mining and dropping."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from methods.aimclr import attention_drop
from methods.base import TeacherConfig, build
from methods.losses import contrasts, info_nce, soft_cross_entropy
from methods.moco import Network, Queue
from skeletons.augment_extreme import extreme
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.streams import as_stream
from skeletons.topology import OPENNI

NAMES = ("skeletonclr", "aimclr")
STGCN = {"kind": "stgcn", "dropout": 0.0}
TRANSFORMER = {"depth": 1, "class_token": False, "registers": 0}


@pytest.fixture
def clip(batch, bodies):
    """Makes the views of three clips, in float64; the third has two persons."""

    def make(model) -> Batch:
        found = batch(model, OPENNI, clips=bodies(OPENNI, 3))["clip"]
        return replace(found, joints=found.joints.double())

    return make


@pytest.fixture
def method(parts, reference):
    """Makes a float64 method whose key network differs from its query network."""

    def make(name, topology=OPENNI, **fields):
        torch.manual_seed(0)
        model = build(parts(name, topology, **fields)).double()
        reference.scramble(model.query, seed=1, std=0.1)
        reference.scramble(model.key, seed=2, std=0.1)
        return model

    return make


def vectors(network: Network, view: Batch, encode, drop=None) -> torch.Tensor:
    """Unit vector of each clip, in loops over clips, persons, patches and joints."""
    first, _, last = network.projector
    tokens = {}
    present = [(c, p) for c in range(len(view)) for p in range(view.present.shape[1]) if view.present[c, p]]
    encoded = encode(network.encoder, torch.stack([view.joints[at] for at in present]))
    for at, x in zip(present, encoded if drop is None else drop(encoded)):
        seen = view.observed[at].double()
        rows = [
            x[t, j]
            for t in range(x.shape[0])
            for j in range(x.shape[1])
            if seen[t * network.encoder.patch : (t + 1) * network.encoder.patch, j].mean() >= 0.5
        ]
        tokens.setdefault(at[0], []).append(sum(rows) / len(rows))
    found = []
    for c in range(len(view)):
        mean = sum(tokens[c]) / len(tokens[c])
        hidden = (first.weight @ mean + first.bias).clamp(min=0)
        z = last.weight @ hidden + last.bias
        found.append(z / (z * z).sum().sqrt())
    return torch.stack(found)


def probabilities(q: torch.Tensor, k: torch.Tensor, queue: torch.Tensor, temperature: float) -> torch.Tensor:
    """softmax over the key and the queue, for one clip."""
    weights = torch.stack([torch.exp(q @ m / temperature) for m in [k, *queue]])
    return weights / weights.sum()


def dropped(x: torch.Tensor, threshold: float = 0.7) -> torch.Tensor:
    """AimCLR's attention-guided drop in loops over sequences and channels; x (sequence, time, joint, channel)."""
    attention = torch.empty_like(x)
    for s in range(len(x)):
        for c in range(x.shape[-1]):
            values = x[s, ..., c].detach()
            square = (values - values.mean()) ** 2
            variance = square.sum() / (values.numel() - 1)
            attention[s, ..., c] = 1 / (1 + torch.exp(-(square / (4 * (variance + 1e-4)) + 0.5)))
    joints = torch.tensor([[float(a[:, j].mean() < threshold) for j in range(x.shape[2])] for a in attention]).double()
    values = (attention < threshold).double()
    x = x * joints[:, None, :, None] * joints.numel() / joints.sum()
    return x * values * values.numel() / values.sum()


@pytest.fixture
def encode(reference):
    """Makes plain tokens: the transformer's formulas; an ST-GCN's are tested in test_stgcn.py."""

    def make(encoder, joints):
        if encoder.kind == "stgcn":
            return encoder(joints).patches
        return reference.encode(encoder, joints)[:, encoder.extra :].unflatten(1, encoder.grid(joints.shape[1]))

    return make


@pytest.mark.parametrize("backbone", [TRANSFORMER, STGCN], ids=["transformer", "stgcn"])
def test_skeletonclr_is_the_published_formula(backbone, method, clip, encode):
    model = method("skeletonclr", backbone=backbone)
    clips = {"clip": clip(model)}
    found = model.loss(clips, Draws(0, 0))
    half = len(clips["clip"]) // 2
    views = [
        Batch(clips["clip"].joints[at], clips["clip"].observed[at], clips["clip"].present[at])
        for at in (slice(half), slice(half, None))
    ]
    q, k = vectors(model.query, views[0], encode), vectors(model.key, views[1], encode).detach()
    choices = [probabilities(a, b, model.queue.keys, 0.07) for a, b in zip(q, k)]
    expected = sum(-torch.log(p[0]) for p in choices) / half
    torch.testing.assert_close(found["loss"], expected, rtol=1e-12, atol=0)
    assert found["accuracy"] == sum(float(p.argmax() == 0) for p in choices) / half
    _same_gradients(model, found["loss"], expected)


@pytest.mark.parametrize(
    ("progress", "mined", "backbone"), [(0.49, False, STGCN), (0.5, True, TRANSFORMER)], ids=["stgcn", "transformer"]
)
def test_aimclr_is_the_published_formula(progress, mined, backbone, method, clip, encode):
    model = method("aimclr", backbone=backbone)
    model.progress.fill_(progress)
    clips = {"clip": clip(model)}
    found = model.loss(clips, Draws(0, 0))
    query, key, strong = clips["clip"].each_view()
    assert torch.equal(torch.cat([query.joints, key.joints, strong.joints]), clips["clip"].joints)
    moved = extreme(strong.joints, strong.observed, OPENNI, Draws(0, 0).fork("extreme"), model.config.extreme)
    strong = replace(strong, joints=moved[0], observed=moved[1])
    k = vectors(model.key, key, encode).detach()
    three = [vectors(model.query, query, encode), *(vectors(model.query, strong, encode, d) for d in (None, dropped))]
    total, positives = 0.0, 0
    for c in range(len(query)):
        p, *others = (probabilities(v[c], k[c], model.queue.keys, 0.07) for v in three)
        chosen = {0} | ({1 + int(r[1:].argmax()) for r in (p, *others)} if mined else set())
        positives += len(chosen)
        total = total - sum(torch.log(p[i]) for i in chosen) / len(chosen)
        for r in others:
            total = total - sum(p[i].detach() * torch.log(r[i]) for i in range(len(p))) / 2
    torch.testing.assert_close(found["loss"], total / len(query), rtol=1e-12, atol=0)
    assert found["positives"] == pytest.approx(positives / len(query))
    assert (found["positives"] > 1) == mined
    assert torch.equal(found["loss"], found["contrast"] + (found["d3m"] + found["d3m_dropped"]) / 2)
    _same_gradients(model, found["loss"], total / len(query))


@pytest.mark.parametrize("stream", ["bone", "motion"])
def test_the_extreme_view_is_made_of_joints_and_then_becomes_the_stream(stream, method, batch, bodies, monkeypatch):
    model, clips, seen = method("aimclr"), bodies(OPENNI, 3), []
    joints = batch(model, OPENNI, clips=clips)["clip"]
    found = batch(model, OPENNI, clips=replace(clips, stream=stream))["clip"]
    assert torch.equal(found.joints, joints.joints) and (found.stream, joints.stream) == (stream, "joint")
    for network in (model.query, model.key):
        own = network.tokens
        monkeypatch.setattr(network, "tokens", lambda view, own=own: seen.append(view) or own(view))
    model.loss({"clip": replace(found, joints=found.joints.double())}, Draws(0, 0))
    query, key, strong = replace(joints, joints=joints.joints.double()).each_view()
    moved = extreme(strong.joints, strong.observed, OPENNI, Draws(0, 0).fork("extreme"), model.config.extreme)
    views = [(query.joints, query.observed), (key.joints, key.observed), moved]
    for view, (x, known) in zip(seen, views, strict=True):
        expected = as_stream(stream, x, known, OPENNI)
        assert torch.equal(view.joints, expected[0]) and torch.equal(view.observed, expected[1])


def _same_gradients(model, found: torch.Tensor, expected: torch.Tensor) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    mine = torch.autograd.grad(found, trained, allow_unused=True)
    other = torch.autograd.grad(expected, trained, allow_unused=True)
    for a, b in zip(mine, other):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_info_nce_and_soft_cross_entropy_are_their_formulas():
    torch.manual_seed(0)
    q, k, m = (F.normalize(torch.randn(n, 5, dtype=torch.float64), dim=1) for n in (4, 4, 7))
    logits = contrasts(q, k, m, 0.2)
    positive = torch.rand(4, 8) < 0.4
    positive[:, 0] = True
    targets = torch.rand(4, 8, dtype=torch.float64).softmax(1)
    plain, several, soft = 0.0, 0.0, 0.0
    for i in range(4):
        cosines = [math.exp(float(q[i] @ x) / 0.2) for x in (k[i], *m)]
        logs = [math.log(c / sum(cosines)) for c in cosines]
        plain -= logs[0] / 4
        chosen = [x for x, p in zip(logs, positive[i].tolist()) if p]
        several -= sum(chosen) / len(chosen) / 4
        soft -= sum(t * x for t, x in zip(targets[i].tolist(), logs)) / 4
    assert float(info_nce(logits)) == pytest.approx(plain, rel=1e-12)
    assert float(info_nce(logits, positive)) == pytest.approx(several, rel=1e-12)
    assert float(soft_cross_entropy(logits, targets)) == pytest.approx(soft, rel=1e-12)


# --- the queue and the key network


def test_the_queue_keeps_the_newest_keys():
    queue = Queue(5, 2, Draws(0, "queue"))
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(5))
    assert torch.equal(queue.keys, Queue(5, 2, Draws(0, "queue")).keys)
    assert not torch.equal(queue.keys, Queue(5, 2, Draws(1, "queue")).keys)
    first = queue.keys.clone()
    key = torch.arange(24.0).view(12, 2)
    queue.push(key[:3])
    assert torch.equal(queue.keys, torch.cat([key[:3], first[3:]]))
    queue.push(key[3:6])
    assert torch.equal(queue.keys, key[[5, 1, 2, 3, 4]]) and queue.next == 1
    queue.push(key[4:12])  # more than fit
    assert sorted(queue.keys[:, 0].tolist()) == key[7:12, 0].tolist()
    with pytest.raises(BadInput, match=r"queue.length=0"):
        Queue(0, 2, Draws(0))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_moves_the_key_network_and_then_its_keys_wait_in_the_queue(name, method, clip):
    model = method(name, teacher={"momentum": 0.9, "constant": True})
    clips = {"clip": clip(model)}
    before, queue = model.loss(clips, Draws(0, 0)), model.queue.keys.clone()
    assert torch.equal(model.loss(clips, Draws(0, 0))["loss"], before["loss"])  # nothing has moved yet
    keys = model.key(clips["clip"].each_view()[1])
    old = [p.clone() for p in model.key.parameters()]
    model.after_step(0.25)
    n = len(keys)
    assert torch.equal(model.queue.keys[:n], keys) and torch.equal(model.queue.keys[n:], queue[n:])
    for kept, was, now in zip(model.key.parameters(), old, model.query.parameters()):
        torch.testing.assert_close(kept, 0.9 * was + 0.1 * now, rtol=1e-12, atol=1e-14)
    model.after_step(0.5)  # without a new batch there is nothing new to keep
    assert model.queue.next == n
    assert model.kept is model.encoder is model.query.encoder


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_is_the_one_that_was_not_interrupted(name, parts, batch):
    def stepped(model, optimizer, steps, first=0):
        for step in range(first, first + steps):
            torch.manual_seed(step)
            optimizer.zero_grad()
            model.loss(clips, Draws(0, step))["loss"].backward()
            optimizer.step()
            model.after_step((step + 1) / 4)

    def fresh(seed):
        torch.manual_seed(seed)
        model = build(parts(name, backbone={"kind": "stgcn"}, queue={"length": 13}))
        return model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01)

    whole, optimizer = fresh(0)
    clips = batch(whole)
    stepped(whole, optimizer, 2)
    saved = {k: v.clone() for k, v in whole.state_dict().items()}
    stepped(whole, optimizer, 2, first=2)
    again, optimizer = fresh(7)
    again.load_state_dict(saved)
    stepped(again, optimizer, 2, first=2)
    state, other = whole.state_dict(), again.state_dict()
    assert all(torch.equal(state[k], other[k]) for k in state)
    assert not torch.equal(saved["queue.keys"], state["queue.keys"])


def test_the_key_networks_batch_norm_is_its_own(method, clip):
    model = method("skeletonclr", backbone=STGCN)
    clips = {"clip": clip(model)}
    key, query = (n.encoder.layers[0].norm2 for n in (model.key, model.query))
    model.loss(clips, Draws(0, 0))
    statistics = key.running_mean.clone()
    assert key.training and (statistics != 0).any() and not torch.equal(statistics, query.running_mean)
    model.after_step(0.5)
    assert torch.equal(key.running_mean, statistics)


@pytest.mark.parametrize("name", NAMES)
def test_methods_run_on_an_st_gcn(name, parts, batch):
    torch.manual_seed(0)
    model = build(parts(name, backbone={"kind": "stgcn"}))
    model.loss(batch(model), Draws(0, 0))["loss"].backward()
    missing = [k for k, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    # Biases ahead of a batch normalisation have no effect.
    assert all(k.endswith("bias") for k in missing)


def test_momentum_may_stay_constant():
    assert {TeacherConfig(0.999, constant=True).at(p, 100) for p in (0, 0.5, 1.0)} == {0.999}
    short = TeacherConfig(0.999, half_life=0.1, constant=True)
    assert short.at(0.9, 100) == pytest.approx(0.5**0.1)
    assert TeacherConfig(0.999).at(1.0, 100) == 1


# --- AimCLR's drop and mining


def test_dropping_is_by_attention():
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, :, 2] *= 4  # a joint that stands out
    found = attention_drop(x, 0.7)
    torch.testing.assert_close(found, dropped(x), rtol=1e-12, atol=0)
    assert (found[:, :, 2] == 0).all() and 0.2 < (found == 0).double().mean() < 0.9
    assert torch.equal(attention_drop(x, 1.0), x)
    assert (attention_drop(x, 0.6) == 0).all()


def test_mining_counts_each_neighbour_once(method):
    model = method("aimclr", queue={"length": 4})
    logits = [torch.tensor([[9.0, 1, 5, 2, 0]]), torch.tensor([[9.0, 1, 5, 2, 0]]), torch.tensor([[9.0, 7, 5, 2, 0]])]
    assert model.positives(logits).tolist() == [[True, False, False, False, False]]
    model.after_step(0.75)
    assert model.positives(logits).tolist() == [[True, True, True, False, False]]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("skeletonclr", {"method": {"temperature": 0.0}}, "method.temperature=0.0"),
        ("skeletonclr", {"queue": {"length": 0}}, "queue.length=0"),
        ("aimclr", {"method": {"neighbours": 41}}, "method.neighbours=41 must be between 0 and queue.length=40"),
        ("aimclr", {"backbone": {"kind": "stgcn", "width": 24}}, "must be a multiple of 16"),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(name, fields, message, method):
    with pytest.raises(BadInput, match=message):
        method(name, **fields)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["transformer", "stgcn"])
def test_autocast_to_bfloat16_is_close(name, kind, parts, batch):
    torch.manual_seed(0)
    model = build(parts(name, backbone={"kind": kind, "dropout": 0.0}))
    views = batch(model)
    exact = model.loss(views, Draws(0, 0))["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.loss(views, Draws(0, 0))["loss"]
    rounded.backward()
    model.after_step(1.0)
    assert float(rounded.detach()) == pytest.approx(float(exact.detach()), rel=0.1)
