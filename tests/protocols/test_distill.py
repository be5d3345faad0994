"""Distillation: the formula, the sizes, and that the teacher is left as it was."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from methods.encoder import Encoder, EncoderConfig, make_encoder
from protocols import distill
from protocols.distill import DistillConfig, distil, distillation_loss, feature_loss, parameters, small_student
from protocols.features import extract
from skeletons.clips import Clips
from skeletons.errors import BadInput
from skeletons.sampling import ClipTensors, ViewConfig
from skeletons.topology import KINECT_V2

VIEWS = ViewConfig(frames=16)
PAIR = EncoderConfig(width=32, depth=2, heads=4, patch=4, kind="aligned_pair")
SHORT = DistillConfig(steps=12, batch=6, warmup=2, lr=3e-3, timings=3)


@pytest.fixture
def teacher() -> Encoder:
    return make_encoder(PAIR, KINECT_V2, 16)


@pytest.fixture
def store(clips: Clips) -> ClipTensors:
    return ClipTensors(clips)


def state_of(*modules):
    return [(k, v.clone(), v.requires_grad) for m in modules for k, v in m.state_dict(keep_vars=True).items()]


@pytest.mark.parametrize(("temperature", "alpha"), [(4.0, 0.5), (1.0, 0.0), (2.0, 1.0)])
def test_the_loss_is_the_weighted_sum_of_cross_entropy_and_divergence(temperature, alpha):
    s, t = 3 * torch.randn(2, 5, 4, dtype=torch.float64)
    y = torch.tensor([0, 3, 1, 2, 2])
    ce = kl = 0.0
    for n in range(5):

        def chances(row, heat):
            weights = [math.exp(v / heat) for v in row.tolist()]
            return [w / sum(weights) for w in weights]

        ce -= math.log(chances(s[n], 1.0)[y[n]]) / 5
        p, q = chances(t[n], temperature), chances(s[n], temperature)
        kl += sum(a * math.log(a / b) for a, b in zip(p, q)) / 5
    expected = alpha * ce + (1 - alpha) * temperature**2 * kl
    assert float(distillation_loss(s, t, y, temperature, alpha)) == pytest.approx(expected, rel=1e-12)
    if alpha == 0:
        assert float(distillation_loss(t, t, y, temperature, alpha)) == pytest.approx(0, abs=1e-12)


def test_features_are_followed_in_direction():
    x = torch.randn(5, 4, dtype=torch.float64)
    assert float(feature_loss(2 * x, x)) == pytest.approx(0, abs=1e-9)
    assert float(feature_loss(-x, x)) == pytest.approx(2)


@pytest.mark.parametrize("kind", ["transformer", "pair", "aligned_pair"])
@pytest.mark.parametrize("size", [(256, 8, 8, 0), (64, 2, 2, 128)], ids=["paper", "demo"])
def test_the_students_parameters_are_at_least_91_percent_fewer(kind, size):
    width, depth, heads, hidden = size
    made = EncoderConfig(width=width, depth=depth, heads=heads, mlp_hidden=hidden, patch=4, kind=kind)
    teacher = make_encoder(made, KINECT_V2, 48)
    student = small_student(teacher, DistillConfig())
    assert student.config.kind == "transformer" and (student.topology, student.frames) == (KINECT_V2, 48)
    assert 1 - parameters(student) / parameters(teacher) >= 0.914
    wider = replace(student.config, width=2 * student.width, mlp_hidden=2 * student.config.mlp_hidden)
    assert 1 - parameters(make_encoder(wider, KINECT_V2, 48)) / parameters(teacher) < 0.914  # the largest that fits


def test_sizes_that_are_said_are_kept(teacher):
    student = small_student(teacher, DistillConfig(width=24, depth=1))
    assert (student.width, student.config.depth, student.config.heads) == (24, 1, 3)
    with pytest.raises(BadInput, match="too small to distil"):
        small_student(make_encoder(EncoderConfig(2, 1, 1, 4), KINECT_V2, 16), DistillConfig())


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_teacher_is_left_as_it_was_and_the_student_learns(labels, training, teacher, store):
    teacher.train(training).register_buffer("statistics", torch.randn(3))
    classes = int(store.labels.max()) + 1
    head = torch.nn.Linear(teacher.width, classes) if labels else None
    frozen = [teacher] if head is None else [teacher, head]
    student = small_student(teacher, SHORT)
    classifier = torch.nn.Linear(student.width, classes) if labels else None
    before, start = state_of(*frozen), state_of(student)
    rows = torch.arange(len(store))
    found = dict(distil(teacher, student, store, rows, VIEWS, SHORT, 0, head, classifier))
    after = state_of(*frozen)
    assert [k for k, *_ in before] == [k for k, *_ in after]
    assert all(torch.equal(a[1], b[1]) and a[2] == b[2] for a, b in zip(before, after))
    assert all(m.training == training for m in teacher.modules())
    assert all(p.grad is None for m in frozen for p in m.parameters())
    assert not all(torch.equal(a[1], b[1]) for a, b in zip(start, state_of(student)))
    assert math.isfinite(found["loss"])
    assert found["parameter_reduction"] >= 91.4 == found["published_parameter_reduction"]
    assert found["teacher_parameters"] == parameters(teacher)
    assert found["flops_ratio"] == found["teacher_flops"] / found["student_flops"] > 1
    assert found["speedup"] == pytest.approx(found["teacher_milliseconds"] / found["student_milliseconds"])


def test_longer_training_brings_the_student_nearer(teacher, store):
    rows, losses = torch.arange(len(store)), []
    for steps in (1, 40):
        torch.manual_seed(0)
        student = small_student(teacher, SHORT)
        setting = replace(SHORT, steps=steps)
        losses.append(next(iter(distil(teacher, student, store, rows, VIEWS, setting, 0)))[1])
    assert losses[1] < losses[0] - 0.1


def test_it_is_a_function_of_the_seed(teacher, store):
    rows, features = torch.arange(len(store)), []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        student = small_student(teacher, SHORT)
        torch.manual_seed(seed + len(features))  # the global generator does not matter
        dict(distil(teacher, student, store, rows, VIEWS, SHORT, seed))
        features.append(extract(student, store, rows, VIEWS, "mean"))
    assert torch.equal(features[0], features[1]) and not torch.equal(features[0], features[2])


def test_labels_are_read_only_with_a_head(teacher, store):
    rows, features = torch.arange(len(store)), []
    for shift in (0, 1):
        torch.manual_seed(0)
        student = small_student(teacher, SHORT)
        store.labels.add_(shift)
        dict(distil(teacher, student, store, rows, VIEWS, SHORT, 0))
        features.append(extract(student, store, rows, VIEWS, "mean"))
    assert torch.equal(*features)


def test_latency_is_a_median_of_turns(teacher, store, monkeypatch):
    ticks = iter([0.0] * 4 + [x for took in (1, 2, 5, 4, 3, 6) for x in (0.0, float(took))])
    monkeypatch.setattr(distill.time, "perf_counter", lambda: next(ticks))
    encoders = [teacher, small_student(teacher, SHORT)]
    found = distill.latencies(encoders, store, torch.arange(2), VIEWS, 3)
    assert found == [3, 4]  # (1, 5, 3) and (2, 4, 6); two turns before are not counted


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"alpha": 1.5}, "alpha"),
        ({"steps": 0}, "steps"),
        ({"batch": 0}, "batch"),
    ],
)
def test_bad_settings_are_refused(setting, message, teacher, store):
    rows = torch.arange(len(store))
    with pytest.raises(BadInput, match=f"distill.{message}="):
        next(iter(distil(teacher, teacher, store, rows, VIEWS, replace(SHORT, **setting), 0)))
    with pytest.raises(BadInput, match="or neither"):
        next(iter(distil(teacher, teacher, store, rows, VIEWS, SHORT, 0, head=torch.nn.Linear(64, 3))))


def test_labels_alone_do_not_ask_the_teacher(teacher, store, monkeypatch):
    rows, settings = torch.arange(len(store)), replace(SHORT, alpha=1.0, steps=3, timings=1)
    head = torch.nn.Linear(teacher.width, 3)
    asked = []
    teacher.register_forward_hook(lambda module, given, out: asked.append(1))
    monkeypatch.setattr(distill, "sizes", lambda *args: iter(()))
    for alpha, expected in ((1.0, False), (0.9, True)):
        asked.clear()
        student = small_student(teacher, settings)
        list(
            distil(
                teacher,
                student,
                store,
                rows,
                VIEWS,
                replace(settings, alpha=alpha),
                0,
                head,
                torch.nn.Linear(student.width, 3),
            )
        )
        assert bool(asked) == expected
