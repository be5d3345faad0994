"""The fast linear probe: what it equals, what it can and cannot learn, and which labels it reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from methods.trainer import batch_clips
from protocols import linear_fast
from protocols.distilled import as_linear
from protocols.linear_fast import Probe, ProbeConfig, choose, fit
from skeletons.errors import BadInput
from skeletons.randomness import Draws

SHORT = ProbeConfig(length="80 steps", batch=32, rates=[0.03, 0.3], decays=[0.0, 1e-3])
PLAIN = [(0.1, 0.0)]


def blobs(clips: int = 120, classes: int = 3, width: int = 8, crops: int = 2, noise: float = 0.3, seed: int = 0):
    """(crop, clip, feature) around one centre for each class, and labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(classes, width) * 4
    y = torch.arange(clips) % classes
    return centres[y] + noise * torch.randn(crops, clips, width, generator=generator), y


def normalised(x: torch.Tensor, p: Probe) -> torch.Tensor:
    return (x - p.mean) * p.scale


def halves(clips: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(0, clips * 3 // 4), torch.arange(clips * 3 // 4, clips)


def test_features_are_normalised_by_their_own_statistics():
    x, y = blobs()
    p = fit(x * 5 + 3, y, 3, PLAIN, SHORT, 0)
    flat = normalised(x * 5 + 3, p).flatten(0, 1)
    torch.testing.assert_close(flat.mean(0), torch.zeros(8), rtol=0, atol=1e-4)
    torch.testing.assert_close(flat.var(0, unbiased=False), torch.ones(8), rtol=0, atol=1e-3)
    constant = fit(torch.ones(1, 12, 8), y[:12], 3, PLAIN, SHORT, 0)
    assert torch.isfinite(constant.weight).all()


@pytest.mark.parametrize(("length", "steps"), [("4 epochs", 12), ("7 steps", 7), ("160 clips", 10)])
def test_all_settings_at_once_equal_torchs_sgd_one_by_one(length, steps):
    x, y = blobs(50, noise=2.0)
    config, settings = replace(SHORT, length=length, batch=16), [(0.01, 0.0), (0.3, 0.05), (1.0, 1e-3)]
    p = fit(x, y, 3, settings, config, 5)
    start = fit(x, y, 3, [(0.0, 0.0)], config, 5)
    z = normalised(x, p)
    for number, (rate, decay) in enumerate(settings):
        layer = torch.nn.Linear(8, 3)
        layer.load_state_dict({"weight": start.weight[0], "bias": start.bias[0]})
        groups = [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias]}]
        sgd = torch.optim.SGD(groups, rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)
        for step in range(steps):
            rows = batch_clips(step, 16, 50, 5)
            crop = Draws(5, step, "probe crop").numpy().integers(0, 2, 16)
            inputs = torch.stack([z[c, row] for c, row in zip(crop, rows)])
            sgd.zero_grad()
            F.cross_entropy(layer(inputs), y[rows]).backward()
            sgd.step()
            schedule.step()
        torch.testing.assert_close(p.weight[number], layer.weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(p.bias[number], layer.bias.detach(), rtol=1e-4, atol=1e-5)


def test_a_long_run_with_weight_decay_ends_where_scikit_learns_logistic_regression_does():
    from sklearn.linear_model import LogisticRegression

    x, y = blobs(90, noise=2.0, crops=1)
    config = replace(SHORT, length="1000 steps", batch=90)
    p = fit(x, y, 3, [(0.5, 0.05)], config, 0)
    z = normalised(x[0], p)
    # scikit-learn minimises C x (sum of losses) + |w|^2 / 2, the probe (mean of losses) + decay |w|^2 / 2.
    exact = LogisticRegression(C=1 / (0.05 * 90), tol=1e-8, max_iter=2000).fit(z.numpy(), y.numpy())
    torch.testing.assert_close(p.weight[0], torch.from_numpy(exact.coef_).float(), rtol=1e-3, atol=1e-3)
    apart = p.bias[0] - p.bias[0].mean() - torch.from_numpy(exact.intercept_ - exact.intercept_.mean()).float()
    assert apart.abs().max() < 1e-3
    assert torch.equal(p.predict(x[0])[0], torch.from_numpy(exact.predict(z.numpy())))


def test_an_epoch_of_a_set_smaller_than_a_batch_is_one_step():
    config = ProbeConfig(length="100 epochs", batch=256)
    assert config.steps(48) == (100, 48) and config.steps(431) == (168, 256) and config.steps(40_000) == (15625, 256)
    assert replace(config, length="400 steps").steps(48) == (400, 48)
    assert replace(config, length="3 clips").steps(48) == (1, 48)


def test_separable_features_are_learnt_whole():
    (x, y), (test, truth) = blobs(), blobs(seed=1)
    found, chosen = choose(x, y, *halves(120), 3, SHORT)
    assert torch.equal(found.predict(test[0])[0], truth) and chosen["validation"] == 100


def test_shuffled_labels_give_chance():
    (x, y), (test, truth) = blobs(900, noise=1.0), blobs(900, noise=1.0, seed=1)
    generator = torch.Generator().manual_seed(0)
    found, _ = choose(x, y[torch.randperm(900, generator=generator)], *halves(900), 3, SHORT)
    assert float((found.predict(test[0])[0] == truth).float().mean()) == pytest.approx(1 / 3, abs=0.12)


def test_the_setting_is_chosen_on_withheld_rows_and_fitted_again_on_all(monkeypatch):
    x, y = blobs(noise=3.0)
    fit_rows, held_rows = halves(120)
    calls = []

    def watched(x, y, classes, settings, config, seed):
        calls.append((x, y, list(settings)))
        return fit(x, y, classes, settings, config, seed)

    monkeypatch.setattr(linear_fast, "fit", watched)
    config = replace(SHORT, rates=[1e-6, 0.03, 30.0], decays=[0.0, 0.3])
    found, chosen = choose(x, y, fit_rows, held_rows, 3, config, seed=4)
    (tried_x, tried_y, tried), (all_x, all_y, last) = calls
    assert torch.equal(tried_x, x[:, fit_rows]) and torch.equal(tried_y, y[fit_rows])
    assert tried == [(rate, decay) for rate in config.rates for decay in config.decays]
    assert all_x is x and all_y is y and last == [(chosen["rate"], chosen["weight_decay"])]
    each = fit(x[:, fit_rows], y[fit_rows], 3, tried, config, 4)
    z, truth = each.logits(x[:, held_rows].flatten(0, 1)), y[held_rows].repeat(len(x))  # every crop counts
    scores = [float((z[s].argmax(1) == truth).float().mean()) for s in range(6)]
    losses = [float(F.cross_entropy(z[s], truth)) for s in range(6)]
    assert len(set(scores)) > 1  # so that there is something to choose
    best = [s for s in range(6) if scores[s] == max(scores)]
    assert last == [tried[min(best, key=lambda s: losses[s])]]
    assert chosen["validation"] == pytest.approx(100 * max(scores))
    assert torch.equal(found.weight, fit(x, y, 3, last, config, 4).weight)


def test_withheld_labels_decide_the_setting():
    x, y = blobs(noise=1.0)
    fit_rows, held_rows = halves(120)
    config = replace(SHORT, rates=[0.0, 0.1], decays=[0.0])  # rate 0 keeps the random weights
    assert choose(x, y, fit_rows, held_rows, 3, config)[1]["rate"] == 0.1
    start = fit(x[:, fit_rows], y[fit_rows], 3, [(0.0, 0.0)], config, 0)
    x = x[:1].expand(2, -1, -1)  # both crops alike, so that a clip's guess is one
    start = fit(x[:, fit_rows], y[fit_rows], 3, [(0.0, 0.0)], config, 0)
    z = normalised(x[0, held_rows], start)
    guessed = y.clone()
    guessed[held_rows] = (z @ start.weight[0].T).argmax(1)  # the labels that random weights get right
    chosen = choose(x, guessed, fit_rows, held_rows, 3, config)[1]
    assert chosen == {"rate": 0.0, "weight_decay": 0.0, "validation": 100}


def test_the_seed_decides():
    x, y = blobs(noise=2.0)
    first, again, other = (fit(x, y, 3, PLAIN, SHORT, seed) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)
    torch.manual_seed(99)
    assert torch.equal(fit(x, y, 3, PLAIN, SHORT, 0).weight, first.weight)


def test_every_crop_is_trained_on():
    x, y = blobs(60, crops=3)
    changed = x.clone()
    changed[2] = changed[2].flip(0)
    assert not torch.equal(fit(x, y, 3, PLAIN, SHORT, 0).weight, fit(changed, y, 3, PLAIN, SHORT, 0).weight)


def test_a_probe_is_a_linear_layer_on_plain_features():
    x, y = blobs(60)
    p = fit(3 * x + 1, y, 3, [(0.3, 0.0)], SHORT, 0)
    layer, plain = as_linear(p), 3 * x[0] + 1
    expected = torch.einsum("nf,cf->nc", (plain - p.mean) * p.scale, p.weight[0]) + p.bias[0]
    torch.testing.assert_close(layer(plain), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(p.logits(plain)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"length": "100"}, "write a number and one of"),
        ({"batch": 0}, "probe.batch=0"),
        ({"crops": -1}, "probe.crops=-1"),
        ({"rates": []}, "probe.rates="),
        ({"decays": [-0.1]}, "probe.decays="),
        ({"validation": 1.0}, "probe.validation="),
    ],
)
def test_bad_settings_are_refused(setting, message):
    x, y = blobs(12)
    with pytest.raises(BadInput, match=message):
        choose(x, y, *halves(12), 3, replace(SHORT, **setting))
