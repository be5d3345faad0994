"""What the user gave us is wrong: one line that names the place and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """A file, a clip or a setting that cannot be used. Commands print it as one line and exit with status 2."""


def unknown(kind: str, given: str, known: Iterable[str]) -> BadInput:
    """`BadInput` for a name that does not exist, with the nearest known one.

    Args:
        kind: what the name stands for, e.g. "method".
        given: the name as the user wrote it.
        known: the names that exist.
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return BadInput(f"unknown {kind} {given!r}; {hint}known: {', '.join(names)}")
