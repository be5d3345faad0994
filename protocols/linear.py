"""Linear probe on frozen, cached features.

The field's probe (MAMP, main_linprobe.py): batch normalisation without parameters, one linear layer (trunc-normal, std
0.01), SGD with momentum 0.9, no weight decay, cosine to 0, trained on random crops with a small rotation. Features are
cached once for each encoder: the evaluation view of every clip and `crops` random ones; each epoch takes one of them of
each clip at random, where MAMP makes new ones. Learning rates are tried on whole training subjects that are withheld,
then the best one is fitted again on all training clips, and the test split is read once, after the last epoch. All
rates are trained at once, as one batched problem.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from protocols.base import Protocol, Result, Subject, accuracy
from skeletons.randomness import Draws


@dataclass
class ProbeConfig:
    """The probe's settings.

    Attributes:
        epochs, batch: of SGD.
        crops: random crops of each training clip beside its evaluation view.
        rates: learning rates to choose from, on withheld training subjects.
        validation: share of the training subjects that is withheld for the choice.
    """

    epochs: int = 100
    batch: int = 256
    crops: int = 4
    rates: list[float] = field(default_factory=lambda: [0.01, 0.03, 0.1, 0.3, 1.0])
    validation: float = 0.25


@dataclass
class Probe:
    """A fitted probe: statistics of the features, and one classifier for each rate."""

    mean: Float[Tensor, " feature"]
    scale: Float[Tensor, " feature"]
    weight: Float[Tensor, "rate class feature"]
    bias: Float[Tensor, "rate class"]

    def logits(self, x: Float[Tensor, "clip feature"]) -> Float[Tensor, "rate clip class"]:
        """What each rate's classifier gives each class."""
        return torch.einsum("nf,rcf->rnc", (x - self.mean) * self.scale, self.weight) + self.bias[:, None]

    def predict(self, x: Float[Tensor, "clip feature"]) -> Int[Tensor, "rate clip"]:
        """The class that each rate's classifier gives each clip."""
        return self.logits(x).argmax(-1)


def fit(
    x: Float[Tensor, "crop clip feature"],
    y: Int[Tensor, " clip"],
    classes: int,
    rates: list[float],
    config: ProbeConfig,
    seed: int,
) -> Probe:
    """Train one classifier for each rate on the same batches; the gradient of the cross-entropy is written out."""
    flat = x.flatten(0, 1)
    mean, scale = flat.mean(0), 1 / (flat.var(0, unbiased=False) + 1e-6).sqrt()
    x = (x - mean) * scale
    start = Draws(seed, "probe").normal(1, classes, x.shape[2]).clamp(-2, 2) * 0.01
    weight, bias = start.repeat(len(rates), 1, 1), x.new_zeros(len(rates), classes)
    momentum = [torch.zeros_like(weight), torch.zeros_like(bias)]
    target = torch.nn.functional.one_hot(y, classes).to(x.dtype)
    rate = torch.tensor(rates)[:, None, None]
    crops, clips = x.shape[:2]
    steps = config.epochs * max(1, -(-clips // config.batch))
    step = 0
    for epoch in range(config.epochs):
        generator = Draws(seed, "probe", epoch).numpy()
        order = torch.from_numpy(generator.permutation(clips))
        crop = torch.from_numpy(generator.integers(0, crops, clips))
        for rows in order.split(config.batch):
            inputs = x[crop[rows], rows]
            error = torch.einsum("nf,rcf->rnc", inputs, weight).add_(bias[:, None]).softmax(-1)
            error.sub_(target[rows]).div_(len(rows))
            now = rate * (1 + torch.cos(torch.tensor(torch.pi * step / steps))) / 2
            momentum[0].mul_(0.9).add_(torch.einsum("rnc,nf->rcf", error, inputs))
            momentum[1].mul_(0.9).add_(error.sum(1))
            weight.sub_(now * momentum[0])
            bias.sub_(now[..., 0] * momentum[1])
            step += 1
    return Probe(mean, scale, weight, bias)


def choose(
    x: Float[Tensor, "crop clip feature"],
    y: Int[Tensor, " clip"],
    fit_rows: Int[Tensor, " fit"],
    held_rows: Int[Tensor, " held"],
    classes: int,
    config: ProbeConfig,
    seed: int = 0,
) -> tuple[Probe, dict[str, float]]:
    """Choose a rate on withheld clips, then fit on all.

    Args:
        x, y: all training clips; the first crop is the evaluation view.
        fit_rows, held_rows: a cut of them by subject, for the choice.

    Returns:
        (the probe, {"rate", "validation"}: what was chosen and its accuracy there in percent)
    """
    tried = fit(x[:, fit_rows], y[fit_rows], classes, list(config.rates), config, seed)
    scores = (tried.predict(x[0, held_rows]) == y[held_rows]).float().mean(1)
    best = int(scores.argmax())
    chosen = {"rate": config.rates[best], "validation": 100 * float(scores[best])}
    return fit(x, y, classes, [config.rates[best]], config, seed), chosen


def probe(
    x: Float[Tensor, "crop clip feature"],
    y: Int[Tensor, " clip"],
    fit_rows: Int[Tensor, " fit"],
    held_rows: Int[Tensor, " held"],
    test: Float[Tensor, "query feature"],
    classes: int,
    config: ProbeConfig,
    seed: int = 0,
) -> tuple[Int[Tensor, " query"], dict[str, float]]:
    """Choose a rate, refit, predict the test clips once (see `choose`).

    Returns:
        (class given to each test clip, what was chosen)
    """
    final, chosen = choose(x, y, fit_rows, held_rows, classes, config, seed)
    return final.predict(test)[0], chosen


class Linear(Protocol):
    """The linear probe."""

    name = "linear"
    label = "linear"
    reads = ("probe",)
    seeded = True
    scores = True

    def __call__(self, subject: Subject) -> Result:
        settings: ProbeConfig = self.config.probe
        x, (y, truth) = subject.crops(settings.crops), subject.labels
        fit_rows, held_rows = subject.withheld(settings.validation)
        test = subject.features[1]
        final, chosen = choose(x, y, fit_rows, held_rows, subject.classes, settings, subject.seed)
        scores = final.logits(test)[0]
        predicted = scores.argmax(-1)
        recipe = f"SGD, {settings.epochs} epochs, {len(x)} cached view(s) a clip, rate from withheld subjects"
        chosen["validation_clips"] = len(held_rows)
        return Result({"top1": accuracy(predicted, truth)}, recipe, predicted, chosen, {"scores": scores.numpy()})
