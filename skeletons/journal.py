"""What is known of an archive while it is made: a line of JSON for each chunk of items that was appended."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skeletons.parallel import Chunk

ABSENT = -1  # in a column that a recording does not have


@dataclass
class Known:
    """The table of what was appended, and what was not."""

    names: dict[str, str] = field(default_factory=dict)  # name -> file
    labels: list[int] = field(default_factory=list)
    columns: dict[str, list[int]] = field(default_factory=dict)
    notes: dict[str, list[int]] = field(default_factory=dict)  # note -> clips, sum of its first number
    left: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)

    def take(self, entry: dict[str, Any]) -> None:
        """Add a line of the journal."""
        for name, file, label, columns, notes in entry["clips"]:
            row = len(self.names)
            self.names[name] = file
            self.labels.append(label)
            for key in {*self.columns, *columns}:
                column = self.columns.setdefault(key, [ABSENT] * row)
                column.append(columns.get(key, ABSENT))
            for note in notes:
                number = re.search(r"\d+", note)
                count = self.notes.setdefault(generic(note), [0, 0])
                count[0] += 1
                count[1] += int(number[0]) if number else 0
        self.left += [(n, r) for n, r in entry["left"]]
        self.damaged += [(n, r) for n, r in entry["damaged"]]

    def without_repeats(self, chunk: Chunk, raw: Path) -> Chunk:
        """The chunk without clips whose name is taken; they count as damaged."""
        kept, damaged, taken = [], list(chunk.damaged), dict(self.names)
        for file, recording in chunk.kept:
            if recording.name in taken:
                reason = f"{raw / file}: a clip named {recording.name} came from {taken[recording.name]} already; "
                damaged.append((file, reason + "names must be distinct, remove or rename one"))
            else:
                taken[recording.name] = file
                kept.append((file, recording))
        return Chunk(kept, chunk.left, damaged)


def generic(text: str) -> str:
    """A note or reason with its numbers left open, for counting."""
    return re.sub(r"\d+", "N", text)


def lines_of(path: Path, keys: Sequence[str], sound: bool) -> Iterator[dict[str, Any]]:
    """Lines of the journal as far as they are whole and about the items of this call (and name nothing damaged)."""
    if not path.is_file():
        return
    for line, key in zip(path.read_text().splitlines(), keys):
        try:
            entry = json.loads(line)
        except ValueError:  # the last line, cut short
            return
        if entry["key"] != key or (sound and entry["damaged"]):
            return
        yield entry


def standing(journal: Sequence[dict[str, Any]], blocks: int) -> Iterator[dict[str, Any]]:
    """Lines whose blocks, and all before them, are on disk."""
    for entry in journal:
        blocks -= entry["block"] is not None
        if blocks < 0:
            return
        yield entry
