"""The linear probe: its gradient, what it can and cannot learn, and which labels it reads."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from protocols import linear
from protocols.linear import Probe, ProbeConfig, fit, probe
from skeletons.randomness import Draws

SHORT = ProbeConfig(epochs=20, batch=32)


def blobs(clips: int = 120, classes: int = 3, width: int = 8, crops: int = 2, noise: float = 0.3, seed: int = 0):
    """(crop, clip, feature) around one centre for each class, and labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(classes, width) * 4
    y = torch.arange(clips) % classes
    return centres[y] + noise * torch.randn(crops, clips, width, generator=generator), y


def normalised(x: torch.Tensor, p: Probe) -> torch.Tensor:
    return (x - p.mean) * p.scale


def test_features_are_normalised_by_their_own_statistics():
    x, y = blobs()
    p = fit(x * 5 + 3, y, 3, [0.1], SHORT, 0)
    flat = normalised(x * 5 + 3, p).flatten(0, 1)
    torch.testing.assert_close(flat.mean(0), torch.zeros(8), rtol=0, atol=1e-4)
    torch.testing.assert_close(flat.var(0, unbiased=False), torch.ones(8), rtol=0, atol=1e-3)
    constant = fit(torch.ones(1, 12, 8), y[:12], 3, [0.1], SHORT, 0)
    assert torch.isfinite(constant.weight).all()


def test_the_gradient_is_autograds():
    x, y = blobs(24)
    one_step = replace(SHORT, epochs=1, batch=24)
    start, p = (fit(x[:1], y, 3, [r], one_step, 0) for r in (0.0, 0.5))
    weight, bias = start.weight[0].clone().requires_grad_(), start.bias[0].clone().requires_grad_()
    assert weight.abs().max() <= 0.02 + 1e-6 and weight.std() > 0.005 and not bias.any()
    F.cross_entropy(F.linear(normalised(x[0], p), weight, bias), y).backward()
    torch.testing.assert_close((start.weight - p.weight)[0] / 0.5, weight.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close((start.bias - p.bias)[0] / 0.5, bias.grad, rtol=1e-4, atol=1e-6)


def test_all_rates_at_once_equal_torchs_sgd_one_by_one():
    x, y = blobs(50, noise=2.0)
    config, rates = replace(SHORT, epochs=4, batch=16), [0.01, 0.3, 1.0]
    p = fit(x, y, 3, rates, config, 5)
    start = fit(x, y, 3, [0.0], config, 5)
    z = normalised(x, p)
    for number, rate in enumerate(rates):
        layer = torch.nn.Linear(8, 3)
        layer.load_state_dict({"weight": start.weight[0], "bias": start.bias[0]})
        sgd = torch.optim.SGD(layer.parameters(), rate, momentum=0.9)
        step, steps = 0, 4 * 4
        for epoch in range(4):
            generator = Draws(5, "probe", epoch).numpy()
            order, crop = generator.permutation(50), generator.integers(0, 2, 50)
            for at in range(0, 50, 16):
                rows = order[at : at + 16]
                inputs = torch.stack([z[crop[row], row] for row in rows])
                sgd.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
                sgd.zero_grad()
                F.cross_entropy(layer(inputs), y[rows]).backward()
                sgd.step()
                step += 1
        torch.testing.assert_close(p.weight[number], layer.weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(p.bias[number], layer.bias.detach(), rtol=1e-4, atol=1e-5)


def halves(clips: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(0, clips * 3 // 4), torch.arange(clips * 3 // 4, clips)


def test_separable_features_are_learnt_whole():
    (x, y), (test, truth) = blobs(), blobs(seed=1)
    predicted, chosen = probe(x, y, *halves(120), test[0], 3, SHORT)
    assert torch.equal(predicted, truth) and chosen["validation"] == 100


def test_shuffled_labels_give_chance():
    (x, y), (test, truth) = blobs(900, noise=1.0), blobs(900, noise=1.0, seed=1)
    generator = torch.Generator().manual_seed(0)
    predicted, _ = probe(x, y[torch.randperm(900, generator=generator)], *halves(900), test[0], 3, SHORT)
    assert float((predicted == truth).float().mean()) == pytest.approx(1 / 3, abs=0.12)


def test_the_rate_is_chosen_on_withheld_rows_and_fitted_again_on_all(monkeypatch):
    (x, y), (test, _) = blobs(noise=3.0), blobs(noise=3.0, seed=1)
    fit_rows, held_rows = halves(120)
    calls = []

    def watched(x, y, classes, rates, config, seed):
        calls.append((x, y, list(rates)))
        return fit(x, y, classes, rates, config, seed)

    monkeypatch.setattr(linear, "fit", watched)
    config = replace(SHORT, rates=[1e-6, 0.03, 30.0])
    predicted, chosen = probe(x, y, fit_rows, held_rows, test[0], 3, config, seed=4)
    (tried_x, tried_y, tried_rates), (all_x, all_y, last_rates) = calls
    assert torch.equal(tried_x, x[:, fit_rows]) and torch.equal(tried_y, y[fit_rows]) and tried_rates == config.rates
    assert all_x is x and all_y is y and last_rates == [chosen["rate"]]
    tried = fit(x[:, fit_rows], y[fit_rows], 3, config.rates, config, 4)
    scores = (tried.predict(x[0, held_rows]) == y[held_rows]).float().mean(1)
    assert len(set(scores.tolist())) > 1  # so that there is something to choose
    assert chosen["rate"] == config.rates[int(scores.argmax())]
    assert chosen["validation"] == pytest.approx(100 * float(scores.max()))
    final = fit(x, y, 3, [chosen["rate"]], config, 4)
    assert torch.equal(predicted, final.predict(test[0])[0])


def test_withheld_labels_decide_the_rate():
    x, y = blobs(noise=1.0)
    fit_rows, held_rows = halves(120)
    config = replace(SHORT, rates=[0.0, 0.1])  # rate 0 keeps the random weights
    test = (x[0], 3, config)
    assert probe(x, y, fit_rows, held_rows, *test)[1]["rate"] == 0.1
    start = fit(x[:, fit_rows], y[fit_rows], 3, [0.0], config, 0)
    z = normalised(x[0, held_rows], start)
    guessed = y.clone()
    guessed[held_rows] = (z @ start.weight[0].T).argmax(1)  # the labels that random weights get right
    assert probe(x, guessed, fit_rows, held_rows, *test)[1] == {"rate": 0.0, "validation": 100}


def test_the_seed_decides():
    x, y = blobs(noise=2.0)
    first, again, other = (fit(x, y, 3, [0.1], SHORT, seed) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)
    torch.manual_seed(99)
    assert torch.equal(fit(x, y, 3, [0.1], SHORT, 0).weight, first.weight)


def test_every_crop_is_trained_on():
    x, y = blobs(60, crops=3)
    changed = x.clone()
    changed[2] = changed[2].flip(0)
    assert not torch.equal(fit(x, y, 3, [0.1], SHORT, 0).weight, fit(changed, y, 3, [0.1], SHORT, 0).weight)


def test_a_probe_is_a_linear_layer_on_plain_features():
    from protocols.distilled import as_linear

    x, y = blobs(60)
    p = fit(3 * x + 1, y, 3, [0.3], SHORT, 0)
    layer, plain = as_linear(p), 3 * x[0] + 1
    expected = torch.einsum("nf,cf->nc", (plain - p.mean) * p.scale, p.weight[0]) + p.bias[0]
    torch.testing.assert_close(layer(plain), expected, rtol=1e-4, atol=1e-4)
