"""Heads trained together equal torch's SGD one by one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from protocols.heads import Heads
from skeletons.randomness import Draws

CPU = torch.device("cpu")


def data(clips: int = 40, width: int = 6, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(clips, width), torch.arange(clips) % classes


def test_the_gradient_is_autograds():
    x, y = data()
    heads = Heads(6, 4, [0.5], [0.0], Draws(0), CPU)
    start = heads.weight.clone()
    weight, bias = start.clone().requires_grad_(), heads.bias.clone().requires_grad_()
    F.cross_entropy(F.linear(x, weight, bias), y).backward()
    heads.step(x, y, 0.2)
    torch.testing.assert_close((start - heads.weight) / 0.1, weight.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(-heads.bias / 0.1, bias.grad, rtol=1e-4, atol=1e-6)


def test_all_settings_equal_torchs_sgd_one_by_one():
    rates, decays = [0.01, 0.3, 1.0, 0.3], [0.0, 0.1, 1e-3, 0.0]
    heads = Heads(6, 4, rates, decays, Draws(3), CPU)
    start = heads.weight[:4].clone()
    assert all(torch.equal(start, each) for each in heads.weight.split(4)) and not heads.bias.any()
    assert 0.005 < float(start.std()) < 0.02
    batches = [data(n) for n in (40, 40, 17, 40, 40)]
    for step, (x, y) in enumerate(batches):
        heads.step(x, y, (1 + math.cos(math.pi * step / 5)) / 2)
    asked = torch.randn(9, 6)
    said = heads.logits(asked)
    for number, (rate, decay) in enumerate(zip(rates, decays)):
        layer = torch.nn.Linear(6, 4)
        layer.load_state_dict({"weight": start, "bias": torch.zeros(4)})
        groups = [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias]}]
        sgd = torch.optim.SGD(groups, rate, momentum=0.9)
        for step, (x, y) in enumerate(batches):
            for group in sgd.param_groups:
                group["lr"] = rate * (1 + math.cos(math.pi * step / 5)) / 2
            sgd.zero_grad()
            F.cross_entropy(layer(x), y).backward()
            sgd.step()
        mine = slice(4 * number, 4 * number + 4)
        torch.testing.assert_close(heads.weight[mine], layer.weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(heads.bias[mine], layer.bias.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(said[number], layer(asked).detach(), rtol=1e-4, atol=1e-4)
