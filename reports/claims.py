"""The papers' claims, as data: published/claims.csv."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from reports.literature import PUBLISHED


@dataclass(frozen=True)
class Claim:
    """A line of claims.csv.

    Attributes:
        id: its name.
        claim: in words.
        source, place: the paper, and where in it.
        ablation, protocol: whose results test it; "transfer fine-tuned" stands for one of every target.
        a, b: cells; a should be better, or keep up with b.
        test: "greater" or "keeps" (a is no more than `margin` points worse).
        note: what else there is to say.
        margin: in points; 0 for "greater".
        published: where -> the difference a - b in points; empty where our sources have none.
        inferred: which cells the numbers belong to had to be inferred.
        secondary: the numbers are from notes about the paper, not from the paper.
    """

    id: str
    claim: str
    source: str
    place: str
    ablation: str
    protocol: str
    a: str
    b: str
    test: str
    note: str
    margin: float
    published: dict[str, float]
    inferred: bool
    secondary: bool

    @property
    def printed(self) -> str:
        """The published differences, marked: * inferred, + from secondary notes."""
        marks = ("*" if self.inferred else "") + ("+" if self.secondary else "")
        values = [f"{v:+.1f}" if round(v, 1) == v else f"{v:+.2f}" for v in self.published.values()]
        return " / ".join(values) + marks if values else "-"


WORDS = ("id", "claim", "source", "place", "ablation", "protocol", "a", "b", "test", "note")


@cache
def claims() -> tuple[Claim, ...]:
    """All claims, in the order of the file."""
    found = []
    with open(PUBLISHED / "claims.csv", newline="") as file:
        for row in csv.DictReader(file):
            places, values = (
                row[key].split(";") if row[key] else [] for key in ("published_on", "published_difference")
            )
            published = {place: float(value) for place, value in zip(places, values, strict=True)}
            plain = {key: row[key] for key in WORDS}
            margin, inferred, secondary = float(row["margin"] or 0), row["inferred"] == "yes", row["secondary"] == "yes"
            found.append(Claim(**plain, margin=margin, published=published, inferred=inferred, secondary=secondary))
    return tuple(found)
