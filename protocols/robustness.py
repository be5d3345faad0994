"""Robustness: how much of a linear probe's accuracy is left when test clips get worse.

The probe is that of protocols/linear_fast.py, fitted once on clean training clips. Then test clips are corrupted, each
way at growing strength (see skeletons/corruptions.py), encoded and classified. The headline is the mean accuracy over
all of these settings; beside it the accuracy on clean clips, the share of it that is kept, and every point of the
curves. No paper on self-supervised skeletons publishes such a table: which corruptions, how strong, and that all count
alike is this project's ASSUMPTION.

Clips are corrupted after they were resampled to the encoder's frames and centred, in metres: what is judged is the
encoder, not the gap filling before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from methods.encoder import Encoder
from methods.persons import pooled
from protocols.base import Protocol, Result, Subject, accuracy
from protocols.features import RAW_FRAMES, frozen_on
from protocols.linear_fast import Probe, ProbeConfig, choose
from skeletons.corruptions import CORRUPTIONS
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch, centre_view, resample
from skeletons.streams import JOINT, as_stream

BATCH = 256


@dataclass
class RobustnessConfig:
    """Strengths of each corruption, weakest first; none leaves it out.

    Attributes:
        noise: standard deviation on every coordinate, metres.
        joints: share of the joints that is never seen.
        frames: share of the frames that is dropped.
        occlusion: share of the clip in which one part of the body is not seen.
        rotation: turn of the camera about the vertical, degrees.
        speed: power of time by which a clip is played unevenly; 1 is even.
    """

    noise: list[float] = field(default_factory=lambda: [0.01, 0.02, 0.03, 0.05, 0.1])
    joints: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.5, 0.7])
    frames: list[float] = field(default_factory=lambda: [0.25, 0.5, 0.75, 0.9, 0.95])
    occlusion: list[float] = field(default_factory=lambda: [0.2, 0.4, 0.6, 0.8, 1.0])
    rotation: list[float] = field(default_factory=lambda: [15.0, 30.0, 45.0, 60.0, 90.0])
    speed: list[float] = field(default_factory=lambda: [1.25, 1.5, 2.0, 3.0, 4.0])

    def settings(self) -> list[tuple[str, float]]:
        """Every (corruption, strength).

        Raises:
            BadInput: there is none, or a strength that makes no sense.
        """
        found = [(name, float(strength)) for name in CORRUPTIONS for strength in getattr(self, name)]
        for name, strength in found:
            least, most = CORRUPTIONS[name].clean, CORRUPTIONS[name].most
            if not least <= strength <= most:
                raise BadInput(f"protocol.robustness.{name}: {strength:g} must lie between {least:g} and {most:g}")
        if not found:
            raise BadInput("protocol.robustness: every list of strengths is empty; name at least one strength")
        return found


def corrupted(view: Batch, name: str, strength: float, subject: Subject, batch: int) -> Batch:
    """A view of the test clips' joints, worse, as the stream that is judged: it is bodies that go wrong.

    Args:
        batch: its number.
    """
    draws = Draws(subject.seed, "robustness", name, strength, batch, device=view.joints.device)
    store = subject.store
    worse = CORRUPTIONS[name].apply(view, strength, draws, store.topology)
    joints, observed = as_stream(store.stream, worse.joints, worse.observed, store.topology)
    return replace(worse, joints=joints, observed=observed)


def _views(subject: Subject, encoder: Encoder | None) -> Iterator[Batch]:
    """The joints of the view that `features` are made of, of the test clips, in batches (raw coordinates: the whole
    clip)."""
    store = subject.store
    for rows in torch.from_numpy(subject.part.test).to(store.device).split(BATCH):
        if encoder is not None:
            yield centre_view(store, rows, subject.views, encoder.frames, JOINT)
        else:
            joints, observed = resample(store, rows, torch.zeros_like(rows), store.length[rows], RAW_FRAMES)
            yield Batch(joints, observed, store.present[rows])


@torch.no_grad()
def features_of(subject: Subject, encoder: Encoder | None, view: Batch) -> Float[Tensor, "row feature"]:
    """Features of a view, as `Subject.features` has them, on the CPU."""
    found = view.joints.flatten(1) if encoder is None else pooled(encoder, view, subject.pooling)
    return found.float().cpu()


def predictions(subject: Subject, probe: Probe, settings: list[tuple[str, float]]) -> Int[Tensor, "setting test"]:
    """The class that the probe gives each test clip under each corruption; clips are resampled once for all."""
    found = []
    with nullcontext() if subject.encoder is None else frozen_on(subject.encoder, subject.store) as encoder:
        for number, view in enumerate(_views(subject, encoder)):
            worse = (corrupted(view, name, strength, subject, number) for name, strength in settings)
            found.append(torch.stack([probe.predict(features_of(subject, encoder, w))[0] for w in worse]))
    return torch.cat(found, 1)


class Robustness(Protocol):
    """See the module's text."""

    name = "robustness"
    label = "robustness"
    reads = ("probe", "robustness")
    seeded = True
    version = 2

    def __init__(self, config: Any, argument: str = ""):
        super().__init__(config, argument)
        self.settings = config.robustness.settings()

    def __call__(self, subject: Subject) -> Result:
        config: ProbeConfig = self.config.probe
        x, (y, truth) = subject.crops(config.crops), subject.labels
        fit_rows, held_rows = subject.withheld(config.validation)
        probe, chosen = choose(x, y, fit_rows, held_rows, subject.classes, config, subject.seed)
        clean = accuracy(probe.predict(subject.test_features)[0], truth)
        predicted = predictions(subject, probe, self.settings)
        each = [accuracy(row, truth) for row in predicted]
        robust = accuracy(predicted, truth)
        metrics = {"robust": robust, "clean": clean, "retained": 100 * robust / clean if clean else 0.0}
        names = [name for name, _ in self.settings]
        for name in dict.fromkeys(names):
            metrics[f"robust_{name}"] = float(np.mean([a for a, n in zip(each, names) if n == name]))
        for (name, strength), found in zip(self.settings, each):
            metrics[f"{name}_{strength:g}"] = found
        strengths = {name: [s for n, s in self.settings if n == name] for name in dict.fromkeys(names)}
        units = {name: CORRUPTIONS[name].unit for name in strengths}
        ways = "; ".join(f"{units[n]}: {', '.join(f'{s:g}' for s in of)}" for n, of in strengths.items())
        recipe = f"a probe on clean clips, test clips corrupted; mean over {len(each)} settings ({ways})"
        details = {**chosen, "strengths": strengths, "units": units}
        arrays = {"corruption": np.array(names), "strength": np.array([s for _, s in self.settings])}
        return Result(metrics, recipe, predicted, details, arrays)
