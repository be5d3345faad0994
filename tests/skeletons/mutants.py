"""Damaged copies of a file, for fuzzing readers: each must be refused in one line, or read as what it says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from skeletons.errors import BadInput

JUNK = (
    b"nan",
    b"inf",
    b"-",
    b"1e999",
    b"1_0",
    b"0x1",
    b" ",
    b",",
    b"\n",
    b"\r\n",
    b"\x00",
    b"\xff",
    b"abc",
    b"",
    b"-1",
)
JUNK += (b"99999999999999999999", b"\xd9\xa3", b'"', b"{", b"]", b"null", b"true", b"1e5", b".", b"+")


def mutants(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` copies of `data`, each damaged once or twice: bytes exchanged, removed, repeated, moved, cut off."""
    rng = random.Random(seed)
    for _ in range(count):
        mutant = data
        for _ in range(rng.choice((1, 1, 2))):
            size = len(mutant)
            if not size:
                break
            at, span = rng.randrange(size), rng.choice((1, 1, 2, 5, 40))
            kind = rng.randrange(6)
            if kind == 0:
                mutant = mutant[:at] + bytes([rng.randrange(256)]) + mutant[at + 1 :]
            elif kind == 1:
                mutant = mutant[:at] + rng.choice(JUNK) + mutant[at + rng.choice((0, 1, span)) :]
            elif kind == 2:
                mutant = mutant[:at] + mutant[at + span :]
            elif kind == 3:
                mutant = mutant[: at + span] + mutant[at:]
            elif kind == 4:
                mutant = mutant[:at]
            else:
                lines = mutant.split(b"\n")
                one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
                lines[one], lines[other] = lines[other], lines[one]
                mutant = b"\n".join(lines)
        yield mutant


def refused(read: Callable[[], object], place: object) -> str:
    """What `read` says about bad input: one line with its place."""
    with pytest.raises(BadInput) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert str(place) in message
    return message
