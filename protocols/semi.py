"""Semi-supervised: fine-tuning (protocols/finetune.py) on a share of the labels, `semi:0.01` or any other in (0, 1].

Several subsets are drawn, each trained with a seed of its own; the number is the mean over draws, and `top1_std` their
standard deviation (n - 1). A subset is balanced over classes with at least one clip of each, or MAMP's draw, which is
neither (skeletons/splits.py). It depends on the data, the seed and the draw alone, so that encoders are compared on the
same clips. Papers report one subset (MAMP, SLiM, PSTL) or a mean of five (CMD). Nothing is chosen: a validation subject
alone would hold more labels than there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from protocols.base import Protocol, Result, Subject, accuracy
from protocols.finetune import FinetuneConfig, fine_tuned, in_words
from skeletons.errors import BadInput, check_choices
from skeletons.splits import balanced_subset, random_subset

SUBSETS = {"balanced": balanced_subset, "mamp": random_subset}


@dataclass
class SemiConfig:
    """Settings of semi-supervised evaluation; how a draw is trained is `protocol.finetune`'s.

    Attributes:
        draws: subsets, each with its own seed.
        subset: balanced, or mamp: the same share of all clips, whatever their classes.
    """

    draws: int = 5
    subset: str = "balanced"

    def check(self) -> None:
        """Raises BadInput for values that make no sense."""
        check_choices("protocol.semi", self, subset=SUBSETS)
        if self.draws < 1:
            raise BadInput(f"protocol.semi.draws={self.draws} must be at least 1")


class Semi(Protocol):
    """See the file's text."""

    name = "semi"
    label = "semi"
    takes = "the share of training clips with labels, e.g. 0.01"
    reads = ("finetune", "semi")
    seeded = True
    raw = False
    pools = False

    def __init__(self, config: object, argument: str = ""):
        super().__init__(config, argument)
        self.settings: SemiConfig = self.config.semi
        self.training: FinetuneConfig = self.config.finetune
        self.settings.check()
        self.training.filled()
        try:
            self.share = float(argument)
        except ValueError:
            self.share = 0.0
        if not 0 < self.share <= 1:
            raise BadInput(f"protocol 'semi:{argument}': write the share of labelled clips, in (0, 1], e.g. semi:0.01")

    @property
    def heading(self) -> str:
        drawn = "" if self.settings.subset == "balanced" else f", {self.settings.subset}'s draw"
        return f"{self.label} {100 * self.share:g} %{drawn}"

    def __call__(self, subject: Subject) -> Result:
        data, truth = subject.data, subject.labels[1]
        draw_of = SUBSETS[self.settings.subset]
        subsets = [
            draw_of(data, subject.part.train, self.share, subject.seed, draw) for draw in range(self.settings.draws)
        ]
        tuned = [fine_tuned(subject, rows, self.training, draw) for draw, rows in enumerate(subsets)]
        predicted = torch.stack([one.predicted for one in tuned])
        each = [accuracy(one.predicted, truth) for one in tuned]
        metrics = {"top1": float(np.mean(each))}
        metrics |= {"top1_std": float(np.std(each, ddof=1))} if len(each) > 1 else {}
        metrics["best_test"] = float(np.mean([one.best_test for one in tuned]))
        metrics |= {f"top1_draw{draw}": value for draw, value in enumerate(each)}
        details = {
            "labels": [len(rows) for rows in subsets],
            "labels_per_class": [np.bincount(data.labels[r], minlength=subject.classes).tolist() for r in subsets],
            "subsets": [data.names(rows) for rows in subsets],
            "steps": [one.steps for one in tuned],
        }
        recipe = f"{in_words(self.training, tuned[0])}; mean over {len(each)} {self.settings.subset} draw(s) of "
        return Result(metrics, f"{recipe}{len(subsets[0])} labels", predicted, details)
