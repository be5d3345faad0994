"""The field's linear probe, slow: new random crops of every clip in each epoch, encoded anew by the frozen encoder.

A recipe (protocols/recipes.py) says how; `linear:mamp`, `linear:slim` and `linear:amr` are the papers' own, pooling
included, `linear` is MAMP's pooled as `protocol.pooling` says. The rate is the recipe's: nothing is chosen, but where a
recipe has several heads (SLiM), one is chosen on withheld training subjects and all are trained again on all training
clips. The headline is the last step's. `best_test` stands beside it: the best test accuracy over evaluations and heads,
which is what MAMP's and SLiM's code reports; it picks by the test labels, so it flatters. The test clips are encoded
once, before training, and their labels are read at the end.

Where the data declares chiral classes, no view is mirrored: its class would be another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods.encoder import Encoder
from methods.optimisation import rate as scheduled
from methods.optimisation import steps_in
from methods.persons import parse_pooling
from methods.trainer import batch_clips
from protocols.base import Protocol, Result, Subject, accuracy
from protocols.features import frozen_on
from protocols.heads import Heads
from protocols.readout import Readout
from protocols.recipes import RECIPES, Recipe
from skeletons.augment import Augmentation, for_labels
from skeletons.errors import BadInput, unknown
from skeletons.randomness import Draws
from skeletons.sampling import Sampler

Columns = dict[str, Int[Tensor, " column"] | None]
Features = Callable[[Int[Tensor, " clip"], Draws], Float[Tensor, "clip feature"]]


@dataclass
class LinearConfig:
    """The slow probe's settings.

    Attributes:
        length: of training, e.g. "400 steps"; empty means the recipe's own.
        batch: clips a step (at most the training clips, but two); 0 means the recipe's own.
        validation: share of the training subjects that is withheld where a head is chosen.
    """

    length: str = ""
    batch: int = 0
    validation: float = 0.25

    def check(self) -> None:
        """Raises BadInput for values that cannot be trained with."""
        if self.length:
            steps_in(self.length, 1, 1)
        if self.batch < 0 or self.batch == 1:
            raise BadInput(f"linear.batch={self.batch} must be at least 2, or 0 for the recipe's own")
        if not 0 < self.validation < 1:
            raise BadInput(f"linear.validation={self.validation} must be between 0 and 1")


class Bank(nn.Module):
    """All heads of a recipe, and the norm before them.

    Args:
        width: of all features.
        columns: kind of head -> what it reads of them, None for all; each has a head for every rate.
    """

    def __init__(self, width: int, classes: int, columns: Columns, recipe: Recipe, seed: int, device: torch.device):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6).to(device) if recipe.norm else nn.Identity()
        rates = list(recipe.rates)
        self.columns, self.heads = list(columns.values()), []
        for name, at in columns.items():
            draws, own = Draws(seed, "linear heads", name), width if at is None else len(at)
            self.heads.append(Heads(own, classes, rates, [0.0] * len(rates), draws, device))

    @torch.no_grad()
    def step(self, x: Float[Tensor, "clip feature"], y: Int[Tensor, " clip"], factor: float) -> None:
        """One step of every head; the norm takes the batch's statistics."""
        x = self.norm.train()(x)
        for at, heads in zip(self.columns, self.heads):
            heads.step(x if at is None else x[:, at], y, factor)

    @torch.no_grad()
    def logits(self, x: Float[Tensor, "clip feature"]) -> Float[Tensor, "head clip class"]:
        """What every head says; the norm takes its running statistics."""
        x = self.norm.eval()(x)
        return torch.cat([heads.logits(x if at is None else x[:, at]) for at, heads in zip(self.columns, self.heads)])

    def predict(self, x: Float[Tensor, "clip feature"]) -> Int[Tensor, "head clip"]:
        """The class that every head gives every clip."""
        return torch.cat([self.logits(part).argmax(-1) for part in x.split(4096)], 1)


def train_bank(
    bank: Bank,
    features: Features,
    rows: Int[Tensor, " train"],
    y: Int[Tensor, " train"],
    test: Float[Tensor, "test feature"],
    steps: int,
    batch: int,
    evaluations: int,
    seed: int,
) -> Int[Tensor, "evaluation head test"]:
    """Train the heads; cosine to 0.

    Args:
        features: of clips `rows`, made anew by the draws of a step.
        y: their classes.
        test: features that are predicted now and then.

    Returns:
        The class given to each of `test` at every evaluation, the last one after the last step.
    """
    evaluate_at = {max(1, round(steps * (i + 1) / evaluations)) for i in range(evaluations)}
    orders: dict = {}
    found = []
    for step in range(steps):
        here = batch_clips(step, batch, len(rows), seed, orders)
        x = features(rows[here], Draws(seed, step, "linear", device=test.device))
        bank.step(x, y[here].to(x.device), scheduled(step, steps, 0, 1.0, 0.0))
        if step + 1 in evaluate_at:
            found.append(bank.predict(test).cpu())
    return torch.stack(found)


@dataclass
class Source:
    """Where features come from; clips are places among the training clips.

    Attributes:
        crops: features of new random crops of training clips.
        train: features of their evaluation view.
        test: of the test clips' evaluation view.
        columns: kind of head -> what it reads of them.
    """

    crops: Features
    train: Callable[[Int[Tensor, " clip"]], Tensor]
    test: Float[Tensor, "test feature"]
    columns: Columns


def _coordinates(subject: Subject) -> Source:
    """Raw coordinates have one view."""
    x, test = (t.to(subject.store.device) for t in subject.features)
    return Source(lambda rows, draws: x[rows.to(x.device)], lambda rows: x[rows.to(x.device)], test, {"all": None})


def _encoded(subject: Subject, encoder: Encoder, recipe: Recipe) -> Source:
    """Crops by the recipe, read by its heads."""
    store, readout = subject.store, Readout(encoder, recipe, subject.store)
    sampler = Sampler(store, recipe.crops(subject.views, encoder.frames), Augmentation(recipe.augment, store.topology))
    train, test = (torch.from_numpy(rows) for rows in (subject.part.train, subject.part.test))

    def crops(rows: Tensor, draws: Draws) -> Tensor:
        return readout(sampler(train[rows].to(store.device), draws)["clip"])

    def whole(rows: Tensor) -> Tensor:
        return readout.whole(store, train[rows], subject.views)

    return Source(crops, whole, readout.whole(store, test, subject.views), readout.heads)


class Linear(Protocol):
    """The linear probe, by a recipe."""

    name = "linear"
    label = "linear"
    takes = "a paper's recipe"
    reads = ("linear",)
    seeded = True
    scores = True

    def __init__(self, config: Any, argument: str = ""):
        super().__init__(config, argument)
        if argument and argument not in RECIPES:
            raise unknown("recipe of the linear probe", argument, RECIPES)
        config.linear.check()
        self.recipe, self.pools = RECIPES[argument or "mamp"], not argument

    @property
    def heading(self) -> str:
        return f"linear, {self.recipe.paper}'s recipe" if self.argument else self.label

    def __call__(self, subject: Subject) -> Result:
        recipe = self.recipe
        if subject.encoder is None:
            return self._judged(subject, recipe, _coordinates(subject), "")
        if not self.argument:
            tokens, persons = parse_pooling(subject.pooling)
            recipe = replace(recipe, tokens=(tokens,), persons=persons)
        said = ", new crops and rotations in each"
        if subject.data.chiral and recipe.augment.mirroring != "none":
            recipe = replace(recipe, augment=for_labels(recipe.augment, True))
            said += ", none mirrored (chiral classes)"
        with frozen_on(subject.encoder, subject.store) as encoder:
            return self._judged(subject, recipe, _encoded(subject, encoder, recipe), said)

    def _judged(self, subject: Subject, recipe: Recipe, source: Source, said: str) -> Result:
        y, truth = subject.labels
        kinds = [(name, rate) for name in source.columns for rate in recipe.rates]
        details: dict[str, Any] = {}
        head = 0
        if len(kinds) > 1:
            fit_rows, held_rows = subject.withheld(self.config.linear.validation)
            few = replace(recipe, evaluations=1)
            seen = self._trained(subject, few, source, fit_rows, source.train(held_rows))[1][-1]
            right = (seen == y[held_rows]).float().mean(1)
            head = int(right.argmax())
            details = {"validation": 100 * float(right[head]), "validation_clips": len(held_rows), "heads": len(kinds)}
        bank, seen = self._trained(subject, recipe, source, torch.arange(len(y)), source.test)
        scores = bank.logits(source.test)[head].float().cpu()
        predicted = scores.argmax(1)
        steps, batch, length = self._length(recipe, len(y))
        top1 = accuracy(predicted, truth)
        best = max(top1, 100 * float((seen == truth).float().mean(-1).max()))
        details |= {"steps": steps, "evaluations": len(seen), "rate": kinds[head][1], "reads": kinds[head][0]}
        details["persons"] = recipe.persons if subject.encoder is not None else "raw"
        rates = f"rate {recipe.rates[0]:g}" if len(recipe.rates) == 1 else f"{len(recipe.rates)} rates"
        by = f"best of {len(kinds)} heads by withheld subjects, " if len(kinds) > 1 else ""
        own = f", persons pooled by {recipe.persons}" if self.argument and subject.encoder is not None else ""
        text = f"{recipe.paper}'s recipe, SGD, {rates}, {by}{length} ({steps} steps of {batch}){said}{own}"
        arrays = {"scores": scores.numpy()}
        return Result({"top1": top1, "best_test": best}, text, predicted, details, arrays)

    def _length(self, recipe: Recipe, clips: int) -> tuple[int, int, str]:
        """(steps, clips a step, length in words) on so many training clips."""
        config: LinearConfig = self.config.linear
        batch, length = max(2, min(config.batch or recipe.batch, clips)), config.length or recipe.length
        return max(1, steps_in(length, batch, clips)), batch, length

    def _trained(
        self, subject: Subject, recipe: Recipe, source: Source, rows: Tensor, test: Tensor
    ) -> tuple[Bank, Int[Tensor, "evaluation head test"]]:
        """Heads trained on some training clips, and what they gave `test` on the way."""
        bank = Bank(test.shape[1], subject.classes, source.columns, recipe, subject.seed, test.device)
        steps, batch, _ = self._length(recipe, len(rows))
        y = subject.labels[0][rows]
        seen = train_bank(bank, source.crops, rows, y, test, steps, batch, recipe.evaluations, subject.seed)
        return bank, seen
