"""The distillation protocol: how much of an encoder's accuracy a small student keeps, and what it saves (ASMa).

The teacher is the encoder with a linear probe (the fast one) on the mean of its patch tokens; the student learns from
its logits and the labels of the training clips (protocols/distill.py), and both are read on the test clips' evaluation
view.
Parameters, FLOPs and latency of both stand beside ASMa's published 91.4 % and 3 times.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor, nn

from methods.encoder import Encoder
from protocols.base import Protocol, Result, Subject, accuracy
from protocols.distill import DistillConfig, distil, small_student
from protocols.features import extract
from protocols.linear_fast import Probe, ProbeConfig, choose
from skeletons.randomness import Draws


def as_linear(probe: Probe) -> nn.Linear:
    """A fitted probe of one setting as a layer on features that have not been normalised."""
    weight = probe.weight[0] * probe.scale
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(probe.bias[0] - weight @ probe.mean)
    return layer.requires_grad_(False)


class Distill(Protocol):
    """See the module's text."""

    name = "distill"
    label = "student"
    reads = ("probe", "distill")
    seeded = True
    raw = False
    pools = False
    version = 4

    def __call__(self, subject: Subject) -> Result:
        assert subject.encoder is not None
        settings: DistillConfig = self.config.distill
        device, teacher = subject.store.device, subject.encoder
        if teacher.topology != subject.store.topology:
            teacher = teacher.on(subject.store.topology).eval()
        head = self._head(replace(subject, encoder=teacher, pooling="mean", _crops={}), self.config.probe).to(device)
        torch.manual_seed(Draws(subject.seed, "student").torch_seed())
        student = small_student(teacher, settings).to(device)
        classifier = nn.Linear(student.width, subject.classes).to(device)
        rows = torch.from_numpy(subject.part.train)
        found = dict(
            distil(teacher, student, subject.store, rows, subject.views, settings, subject.seed, head, classifier)
        )
        truth, predicted = subject.labels[1], self._predicted(subject, student, classifier)
        taught = accuracy(self._predicted(subject, teacher, head), truth)
        metrics = {"top1": accuracy(predicted, truth), "teacher_top1": taught, **found}
        fewer, faster = found["parameter_reduction"], found["speedup"]
        recipe = (
            f"student of {found['student_parameters']:,.0f} parameters ({fewer:.1f} % fewer, ASMa: 91.4 %), "
            f"{faster:.1f} times faster on this device (ASMa: 3), {settings.steps} steps; "
            f"its teacher's probe: {metrics['teacher_top1']:.1f} %"
        )
        return Result(metrics, recipe, predicted)

    @staticmethod
    def _head(subject: Subject, settings: ProbeConfig) -> nn.Linear:
        """The teacher's probe, its rate and weight decay chosen on withheld subjects."""
        fit_rows, held_rows = subject.withheld(settings.validation)
        x, y = subject.crops(settings.crops), subject.labels[0]
        return as_linear(choose(x, y, fit_rows, held_rows, subject.classes, settings, subject.seed)[0])

    @staticmethod
    def _predicted(subject: Subject, encoder: Encoder, classifier: nn.Linear) -> Int[Tensor, " test"]:
        rows = torch.from_numpy(subject.part.test)
        features = extract(encoder, subject.store, rows, subject.views, "mean")
        with torch.no_grad():
            return classifier.cpu()(features).argmax(1)
