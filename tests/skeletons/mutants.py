"""Damaged copies of a file, for fuzzing readers: each must be refused in one line, or read as what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

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


@dataclass(frozen=True)
class Replace:
    """`span` bytes give way to others: exchanged, inserted (0 bytes), removed or cut off (for none)."""

    at: int
    span: int
    put: bytes = b""

    def __call__(self, data: bytes) -> bytes:
        return data[: self.at] + self.put + data[self.at + self.span :]


@dataclass(frozen=True)
class Copy:
    """`span` bytes stand at another place once more."""

    at: int
    span: int
    to: int
    after: bytes = b""

    def __call__(self, data: bytes) -> bytes:
        return data[: self.to] + self.after + data[self.at : self.at + self.span] + data[self.to :]


@dataclass(frozen=True)
class SwapLines:
    one: int
    other: int

    def __call__(self, data: bytes) -> bytes:
        lines = data.split(b"\n")
        one, other = self.one % len(lines), self.other % len(lines)
        lines[one], lines[other] = lines[other], lines[one]
        return b"\n".join(lines)


Damage = Replace | Copy | SwapLines


def damage(data: bytes) -> st.SearchStrategy[Damage]:
    """Bytes exchanged, junk inserted, bytes removed or repeated, the file cut off, two lines swapped."""
    size = len(data)
    at, span = st.integers(0, size - 1), st.sampled_from((1, 2, 5, 40))
    line = st.integers(0, data.count(b"\n"))
    return st.one_of(
        st.builds(Replace, at, st.just(1), st.binary(min_size=1, max_size=1)),
        st.builds(Replace, at, st.sampled_from((0, 1, 2, 5, 40)), st.sampled_from(JUNK)),
        st.builds(Replace, at, span),
        st.tuples(at, span).map(lambda t: Copy(t[0], t[1], sum(t))),
        at.map(lambda a: Replace(a, size - a)),
        st.builds(SwapLines, line, line),
    )


def fuzz(
    data: bytes,
    check: Callable[[bytes], None],
    examples: int = 250,
    damages: st.SearchStrategy[list[Damage]] | None = None,
    start: int = 0,
) -> None:
    """Gives `check` damaged copies of `data`; the damage it fails at is told as small as hypothesis can make it.

    Args:
        damages: What is done to a copy; without it one or two pieces of `damage`.
        start: The seed: with the same one the same damage is done.
    """
    if damages is None:
        one = damage(data)
        damages = st.sampled_from((1, 1, 2)).flatmap(lambda n: st.lists(one, min_size=n, max_size=n))

    @seed(start)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(damages)
    def run(damages: list[Damage]) -> None:
        damaged = data
        for harm in damages:
            damaged = harm(damaged)
        check(damaged)

    run()


def refused(read: Callable[[], object], place: object) -> str:
    """What `read` says about bad input: one line with its place."""
    with pytest.raises(BadInput) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert str(place) in message
    return message
