"""The fast linear probe: frozen, cached features, and many learning rates and weight decays trained at once.

It stands for the field's probe (protocols/linear.py), which makes new crops in each epoch: here features of a few
random crops of every training clip are cached once for each encoder, and each batch takes one of them of each of its
clips at random. Settings are tried on whole training subjects that are withheld (on their crops), then the best one is
fitted again on all training clips, and the test split is read once, after the last step. Features are normalised by
their mean and variance over all training clips and crops, where the slow probe's batch norm has running ones.

The evaluation view is not trained on, as it is not by the slow probe. Where it was one of four cached views, accuracy
rose by 2 to 5 points over the slow probe's on utdmhad; with four crops the two agree (reports/results/README.md).

SGD and not L-BFGS: so many steps at such a rate are what the slow probe takes, so both can be set alike and compared.
Where a weight decay is given, L-BFGS reaches the same accuracy sooner, 91.1 % after 2 s where one setting of SGD takes
some 20 (40,000 made clips, tests/benchmarks/probing.py); without one it has no end of its own.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from methods.optimisation import rate as scheduled
from methods.optimisation import steps_in
from methods.trainer import batch_clips
from protocols.base import Protocol, Result, Subject, accuracy
from protocols.heads import Heads
from skeletons.errors import BadInput
from skeletons.randomness import Draws

Setting = tuple[float, float]
"""Learning rate and weight decay."""
BLOCK = 4096  # clips that are predicted together


@dataclass
class ProbeConfig:
    """The fast probe's settings.

    Attributes:
        length: of SGD, in epochs, steps or clips (see optimisation.steps_in); an epoch of a set with fewer clips than
            a batch is one step.
        batch: clips a step, at most the training clips.
        crops: random crops of each training clip; 0 takes the evaluation view instead.
        rates, decays: learning rates and weight decays; each pair of them is tried on withheld training subjects.
        validation: share of the training subjects that is withheld for the choice.
    """

    length: str = "100 epochs"
    batch: int = 256
    crops: int = 4
    rates: list[float] = field(default_factory=lambda: [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
    decays: list[float] = field(default_factory=lambda: [0.0, 1e-3, 1e-2])
    validation: float = 0.25

    def check(self) -> None:
        """Raises BadInput for values that cannot be trained with."""
        steps_in(self.length, 1, 1)
        if self.batch < 1 or self.crops < 0:
            raise BadInput(f"probe.batch={self.batch} must be at least 1, probe.crops={self.crops} not negative")
        for name in ("rates", "decays"):
            values = list(getattr(self, name))
            if not values or min(values) < 0:
                raise BadInput(f"probe.{name}={values} must name at least one value, none of them negative")
        if not 0 < self.validation < 1:
            raise BadInput(f"probe.validation={self.validation} must be between 0 and 1")

    def settings(self) -> list[Setting]:
        """Every pair of a rate and a decay."""
        return list(itertools.product(self.rates, self.decays))

    def steps(self, clips: int) -> tuple[int, int]:
        """(steps, clips a step) on so many training clips."""
        batch = min(self.batch, clips)
        return max(1, steps_in(self.length, batch, clips)), batch


@dataclass
class Probe:
    """A fitted probe: statistics of the features, and one classifier for each setting."""

    mean: Float[Tensor, " feature"]
    scale: Float[Tensor, " feature"]
    weight: Float[Tensor, "setting class feature"]
    bias: Float[Tensor, "setting class"]

    def logits(self, x: Float[Tensor, "clip feature"]) -> Float[Tensor, "setting clip class"]:
        """What each classifier says of each clip."""
        found = torch.addmm(self.bias.flatten(), (x - self.mean) * self.scale, self.weight.flatten(0, 1).T)
        return found.unflatten(1, self.bias.shape).transpose(0, 1)

    def predict(self, x: Float[Tensor, "clip feature"]) -> Int[Tensor, "setting clip"]:
        """The class that each classifier gives each clip."""
        return torch.cat([self.logits(part).argmax(-1) for part in x.split(BLOCK)], 1)

    def on(self, device: torch.device | str) -> Probe:
        """The same on another device."""
        return Probe(*(t.to(device) for t in (self.mean, self.scale, self.weight, self.bias)))


def fit(
    x: Float[Tensor, "crop clip feature"],
    y: Int[Tensor, " clip"],
    classes: int,
    settings: list[Setting],
    config: ProbeConfig,
    seed: int,
) -> Probe:
    """Train one classifier for each setting on the same batches (cosine to 0, see heads.Heads)."""
    crops, clips = x.shape[:2]
    flat = x.flatten(0, 1)
    variance, mean = torch.var_mean(flat, 0, correction=0)
    scale = (variance + 1e-6).rsqrt()
    rates, decays = [s[0] for s in settings], [s[1] for s in settings]
    heads = Heads(x.shape[2], classes, rates, decays, Draws(seed, "probe"), x.device)
    steps, batch = config.steps(clips)
    inputs = x.new_empty(batch, x.shape[2])
    orders: dict = {}
    for step in range(steps):
        rows = batch_clips(step, batch, clips, seed, orders)
        crop = torch.from_numpy(Draws(seed, step, "probe crop").numpy().integers(0, crops, batch))
        torch.index_select(flat, 0, (crop * clips + rows).to(x.device), out=inputs)
        heads.step(inputs.sub_(mean).mul_(scale), y[rows.to(y.device)], scheduled(step, steps, 0, 1.0, 0.0))
    shape = (len(settings), classes)
    return Probe(mean, scale, heads.weight.unflatten(0, shape), heads.bias.unflatten(0, shape))


def choose(
    x: Float[Tensor, "crop clip feature"],
    y: Int[Tensor, " clip"],
    fit_rows: Int[Tensor, " fit"],
    held_rows: Int[Tensor, " held"],
    classes: int,
    config: ProbeConfig,
    seed: int = 0,
) -> tuple[Probe, dict[str, float]]:
    """Choose a setting on withheld clips (of equally accurate ones, that of the lowest cross-entropy), then fit on all.

    Args:
        x, y: all training clips.
        fit_rows, held_rows: a cut of them by subject, for the choice.

    Returns:
        (the probe, {"rate", "weight_decay", "validation"}: what was chosen and its accuracy there in percent)
    """
    config.check()
    settings = config.settings()
    tried = fit(x[:, fit_rows], y[fit_rows], classes, settings, config, seed)
    right, loss = x.new_zeros(len(settings)), x.new_zeros(len(settings))
    for rows in held_rows.split(BLOCK):
        for crop in x:
            logits, truth = tried.logits(crop[rows]), y[rows].expand(len(settings), -1)
            right += (logits.argmax(-1) == truth).sum(1)
            loss += F.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none").view(truth.shape).sum(1)
    best = min(range(len(settings)), key=lambda s: (-float(right[s]), float(loss[s])))
    rate, decay = settings[best]
    chosen = {"rate": rate, "weight_decay": decay, "validation": 100 * float(right[best]) / (len(x) * len(held_rows))}
    return fit(x, y, classes, [settings[best]], config, seed), chosen


class LinearFast(Protocol):
    """The linear probe on cached features."""

    name = "linear_fast"
    label = "linear (fast)"
    reads = ("probe",)
    seeded = True
    scores = True
    version = 2

    def __init__(self, config: Any, argument: str = ""):
        super().__init__(config, argument)
        config.probe.check()

    def __call__(self, subject: Subject) -> Result:
        settings: ProbeConfig = self.config.probe
        device, (y, truth) = subject.store.device, subject.labels
        x = subject.crops(settings.crops).to(device)
        fit_rows, held_rows = (rows.to(device) for rows in subject.withheld(settings.validation))
        found, chosen = choose(x, y.to(device), fit_rows, held_rows, subject.classes, settings, subject.seed)
        scores = found.on("cpu").logits(subject.test_features)[0]
        predicted = scores.argmax(1)
        steps, batch = settings.steps(x.shape[1])
        recipe = (
            f"SGD, {settings.length} ({steps} steps of {batch}), {len(x)} cached view(s) a clip, "
            "rate and weight decay from withheld subjects"
        )
        details = {"validation_clips": len(held_rows), "steps": steps, "settings_tried": len(settings.settings())}
        arrays = {"scores": scores.numpy()}
        return Result({"top1": accuracy(predicted, truth)}, recipe, predicted, {**chosen, **details}, arrays)
