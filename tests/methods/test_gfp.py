"""GFP against its formulas, written out window by window; its windows, its targets and its predictor."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from methods.base import build
from methods.gfp import windows
from methods.masking import mask_context
from methods.masking.tokens import visible_tokens
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.topology import Topology

BODY = Topology(("spine_base", "spine_mid", "head", "hand_left", "hand_right"), (0, 0, 1, 1, 1), "small")
MAMP = {"position": "learned", "class_token": False, "registers": 0, "init": "xavier", "norm_eps": 1e-5}
SHARES = [1 / 6, 1 / 3, 1.0]


@pytest.fixture
def gfp(parts, reference):
    def make(topology=BODY, **fields):
        torch.manual_seed(0)
        masking = {"strategy": "motion", "ratio": 0.7}
        model = build(parts("gfp", topology, **{"backbone": MAMP, "masking": masking, **fields}))
        model = model.to(torch.get_default_dtype())
        reference.scramble(model, 1)
        return model

    return make


@pytest.fixture
def clip(batch, gfp):
    """Views of six clips, two of them with two persons; some tokens are not observed."""
    made = batch(gfp(), BODY)["clip"]
    made.observed[0, 0, :9, 3:] = False
    made.observed[1, 0, 4:16, 2] = False
    made.observed[3] = False
    made.observed[3, 0, :4] = True  # one token in time, so no motion at all
    return replace(made, joints=made.joints.to(torch.get_default_dtype()))


# --- windows


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (30, (5, 10, 30)),
        (16, (3, 5, 16)),
        (8, (1, 3, 8)),
        (4, (1, 2, 4)),
        (3, (1, 2, 3)),
        (2, (1, 2)),
        (60, (10, 20, 60)),
    ],
)
def test_windows_are_shares_that_grow(tokens, expected):
    assert windows(SHARES, tokens) == expected


@pytest.mark.parametrize("shares", [[], [0.0, 1.0], [0.5, 0.2], [0.5, 0.5], [0.5, 1.1]])
def test_shares_that_do_not_grow_are_refused(shares, parts):
    with pytest.raises(BadInput, match=r"method\.fractions=.*write shares"):
        build(parts("gfp", method={"fractions": shares}))


def test_at_the_papers_size_there_are_251_targets(parts):
    model = build(parts("gfp", views={"frames": 120}))
    motion = torch.randn(2, 30, 25, 12)
    assert model.targets(motion).shape == (2, 251, 8)
    assert [w.shape[1] for w in model.known_targets(torch.ones(2, 30, 25, dtype=torch.bool))] == [150, 75, 25, 1]
    tokens, visible = torch.randn(2, 4, 16), torch.tensor([[0, 5, 9, 700]] * 2)
    assert model.predictor(tokens, visible).shape == (2, 251, 8)
    assert model.predictor.grid == (6, 25)


def test_hidden_widths_are_those_of_the_heads(parts):
    model = build(parts("gfp", heads={"hidden": 2048, "bottleneck": 256}, views={"frames": 120}))
    shapes = [[tuple(layer.weight.shape) for layer in mlp[::2]] for mlp in (*model.targets.local, model.targets.clip)]
    for length, found in zip((5, 10, 30), shapes):
        assert found == [(512, 12 * length), (512, 512), (256, 512)]
    assert shapes[-1] == [(2048, 12 * 750), (2048, 2048), (256, 2048)]


# --- the loss


def mlp(layers, values, reference):
    x = torch.stack(values)[None]
    for i, layer in enumerate(layers):
        x = x * (1 + torch.erf(x / math.sqrt(2))) / 2 if i % 2 else reference.linear(layer, x)
    return x[0]


def literal(model, clip, draws, reference, lengths, times):
    """The three terms, from one window at a time; `lengths` of windows, `times` temporal tokens."""
    context = mask_context(clip, model.encoder.patch, BODY, model.ratio, draws)
    visible, _ = visible_tokens(
        model.masking(context, draws.fork("mask")), model.visible, context, draws.fork("complete")
    )
    patch, persons, count = model.encoder.patch, clip.joints.shape[1], 5
    cuts = [[list(range(a, min(a + w, times))) for a in range(0, times, w)] for w in lengths]
    errors, rows = [], [[] for _ in range(len(lengths) + 1)]
    for row, person in clip.present.nonzero().tolist():
        s, x = row * persons + person, clip.joints[row, person]
        seen = [
            [clip.observed[row, person, patch * t : patch * (t + 1), j].float().mean() >= 0.5 for j in range(count)]
            for t in range(times)
        ]

        def motion(t, j, x=x, seen=seen):
            """Values of x[t + 1] - x[t], None where it is not known."""
            if t + 1 >= times or not (seen[t][j] and seen[t + 1][j]):
                return None
            return [x[patch * (t + 1) + f, j, a] - x[patch * t + f, j, a] for f in range(patch) for a in range(3)]

        nothing = [x.new_zeros(())] * (3 * patch)
        shown = visible[s : s + 1]
        tokens = reference.encode(model.encoder, x[None], visible=shown)[0, model.encoder.extra :]

        p = model.predictor  # tokens, averaged over the shortest windows
        grid = {}
        for t in range(times):
            for j in range(count):
                at = (shown[0] == t * count + j).nonzero().flatten().tolist()
                grid[t, j] = reference.linear(p.embed, tokens[at])[0] if at else p.mask_token[0]
        full = [
            sum(grid[t, j] for t in cut) / len(cut) + p.time[i, 0] + p.joint[0, j]
            for i, cut in enumerate(cuts[0])
            for j in range(count)
        ]
        y = torch.stack(full)
        for block in p.blocks:
            y = reference.block(block, y, [None] * len(y))
        y = reference.norm(p.norm, y)

        def token(t, j, y=y):
            """The predictor's output for the shortest window in which a token lies."""
            return y[(t // lengths[0]) * count + j]

        for level, (length, level_cuts) in enumerate(zip(lengths, cuts)):
            head = p.predict if level == 0 else p.longer[level - 1]
            for cut in level_cuts:
                for j in range(count):
                    inside = [motion(t, j) for t in cut]
                    known, possible = sum(m is not None for m in inside), sum(t + 1 < times for t in cut)
                    if known == 0 or known < possible / 2:
                        continue
                    values = [v for m in inside for v in (m or nothing)] + nothing * (length - len(cut))
                    target = mlp(model.targets.local[level], values, reference)
                    mean = sum(token(t, j) for t in cut) / len(cut)
                    errors.append(((reference.linear(head, mean[None])[0] - target) ** 2).mean())
                    rows[level].append(target)
        everything = [motion(t, j) for t in range(times) for j in range(count)]
        if sum(m is not None for m in everything) >= (times - 1) * count / 2:
            target = mlp(model.targets.clip, [v for m in everything for v in (m or nothing)], reference)
            mean = sum(token(t, j) for t in range(times) for j in range(count)) / (times * count)
            errors.append(((reference.linear(p.clip, mean[None])[0] - target) ** 2).mean())
            rows[-1].append(target)
    variance = covariance = 0.0
    for level in rows:
        z, width = torch.stack(level), len(level[0])
        for a in range(width):
            for b in range(width):
                value = sum(float((r[a] - z[:, a].mean()) * (r[b] - z[:, b].mean())) for r in z) / (len(z) - 1)
                if a == b:
                    variance += max(0.0, 1 - math.sqrt(value + 1e-4)) / width
                else:
                    covariance += value**2 / width
    return float(sum(errors)) / len(errors), covariance, variance, [len(level) for level in rows]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("patch", "shares", "lengths"), [(4, SHARES, (1, 2, 4)), (2, [0.25, 0.4, 1.0], (2, 3, 8)), (4, [0.7], (3,))]
)
def test_loss_equals_a_literal_loop_over_windows(patch, shares, lengths, gfp, clip, reference):
    backbone = {"registers": 2} if patch == 2 else MAMP
    model = gfp(backbone={**backbone, "patch": patch}, method={"fractions": shares})
    for mlp_ in (*model.targets.local, model.targets.clip):  # some channels below the hinge, some above
        with torch.no_grad():
            mlp_[-1].weight[::2] *= 0.1
    assert model.lengths == lengths
    with torch.no_grad():
        found = model.loss({"clip": clip}, Draws(0, 2))
        prediction, covariance, variance, counts = literal(model, clip, Draws(0, 2), reference, lengths, 16 // patch)
    assert float(found["prediction"]) == pytest.approx(prediction, rel=1e-12)
    assert float(found["covariance"]) == pytest.approx(covariance, rel=1e-11)
    assert float(found["variance"]) == pytest.approx(variance, rel=1e-11)
    assert 0 < variance < len(counts)
    assert float(found["loss"]) == pytest.approx(5 * prediction + 5 * covariance + variance, rel=1e-11)
    full = [int(clip.present.sum()) * 5 * -(-16 // patch // w) for w in lengths]
    assert all(n < most for n, most in zip(counts, full))  # the unknown are no targets


def test_gradients_flow_to_both_sides(gfp, clip):
    model = gfp(method={"alpha_covariance": 0.0, "beta_variance": 0.0})
    model.loss({"clip": clip}, Draws(0, 0))["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    model = gfp(method={"lambda_prediction": 0.0})
    model.loss({"clip": clip}, Draws(0, 0))["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.targets.parameters() if p.ndim > 1)
    assert not any(p.grad.any() for p in model.encoder.parameters())


def test_where_a_body_stands_is_no_target(gfp):
    model = gfp()
    x, seen = torch.randn(3, 16, 5, 3), torch.ones(3, 4, 5, dtype=torch.bool)
    moved, known = model.motion(x + torch.randn(3, 1, 5, 3), seen)
    torch.testing.assert_close(moved, model.motion(x, seen)[0], atol=1e-5, rtol=0)
    assert known[:, :-1].all() and not known[:, -1].any() and not moved[:, -1].any()


def test_what_stands_where_nothing_was_observed_does_not_reach_the_targets(gfp, clip):
    model, seen = gfp(), []
    model.targets.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    observed = clip.observed.clone()
    observed[:, :, 4:8, 1] = False
    noise = clip.joints.clone()
    noise[:, :, 4:8, 1] = 7.0
    for joints in (clip.joints, noise):
        model.loss({"clip": replace(clip, joints=joints, observed=observed)}, Draws(0, 0))
    assert torch.equal(*seen)
    nothing = model.loss({"clip": replace(clip, observed=torch.zeros_like(clip.observed))}, Draws(0, 0))
    assert nothing["prediction"] == 0 and torch.isfinite(nothing["loss"])


def test_the_clips_target_needs_half_of_all_motion(gfp):
    model = gfp()  # 3 differences of 5 joints
    known = torch.zeros(2, 4, 5, dtype=torch.bool)
    known[:, 0] = True
    known[0, 1, :2], known[1, 1, :3] = True, True
    assert model.known_targets(known)[-1].flatten().tolist() == [False, True]
    assert model.known_targets(torch.ones(1, 4, 5, dtype=torch.bool))[-1].all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"views": {"frames": 4}}, "needs at least two"),
        ({"heads": {"layers": 0}}, "heads.layers=0 must be at least 1"),
        ({"decoder": {"width": 15}}, "decoder.width=15"),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(fields, message, parts):
    with pytest.raises(BadInput, match=message):
        build(parts("gfp", **fields))
