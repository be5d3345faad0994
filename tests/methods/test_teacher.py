"""The moving average that teachers are."""

from __future__ import annotations

import torch
from torch import nn

from methods.teacher import follow, teacher_of


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def test_a_teacher_starts_as_its_student_and_owns_its_weights():
    student = network(0)
    teacher = teacher_of(student)
    for p, q in zip(teacher.parameters(), student.parameters(), strict=True):
        assert torch.equal(p, q) and p is not q and q.requires_grad and not p.requires_grad


def test_it_moves_by_what_the_momentum_leaves_and_takes_statistics_over():
    student, teacher = network(0), teacher_of(network(1))
    before = [p.clone() for p in teacher.parameters()]
    student(torch.randn(8, 4))  # moves the student's running statistics
    follow(teacher, student, 0.9)
    for old, p, q in zip(before, teacher.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(p, 0.9 * old + 0.1 * q)
    assert teacher[1].running_mean.any()
    assert all(torch.equal(a, b) for a, b in zip(teacher.buffers(), student.buffers(), strict=True))
    held = [p.clone() for p in teacher.parameters()]
    follow(teacher, network(2), 1.0)
    assert all(torch.equal(p, q) for p, q in zip(held, teacher.parameters(), strict=True))
