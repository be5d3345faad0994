"""Test clips that something was trained on: the very same frames, whatever their names and wherever they come from.

Cut, moved or noisy copies are the audit's (skeletons/duplicates.py); this is cheap enough to be asked of every result.
"""

from __future__ import annotations

import numpy as np

from skeletons.clips import Clips

_FOUND: dict[tuple[str, bytes, str, bytes], np.ndarray] = {}  # every result of a table asks the same


def copies(clips: Clips, rows: np.ndarray, others: Clips, their_rows: np.ndarray) -> np.ndarray:
    """Which of these clips are, frame for frame, one of those others.

    Args:
        rows, their_rows: int64, numbers of clips.

    Returns:
        bool (row).
    """
    key = clips.fingerprint, rows.tobytes(), others.fingerprint, their_rows.tobytes()
    if key not in _FOUND:
        _FOUND[key] = _copies(clips, rows, others, their_rows)
    return _FOUND[key]


def _copies(clips: Clips, rows: np.ndarray, others: Clips, their_rows: np.ndarray) -> np.ndarray:
    found = np.zeros(len(rows), bool)
    if clips.frames.shape[1:] != others.frames.shape[1:]:
        return found
    alike: dict[tuple[int, bytes], list[int]] = {}  # whole clips are read only where one frame and the length agree
    for row, key in zip(their_rows.tolist(), _keys(others, their_rows)):
        alike.setdefault(key, []).append(row)
    for i, (row, key) in enumerate(zip(rows.tolist(), _keys(clips, rows))):
        found[i] = any(np.array_equal(_frames(clips, row), _frames(others, other)) for other in alike.get(key, ()))
    return found


def _keys(clips: Clips, rows: np.ndarray) -> list[tuple[int, bytes]]:
    """Length and middle frame of each clip."""
    lengths = clips.lengths[rows]
    middle = clips.frames[clips.offsets[rows] + lengths // 2]
    return [(length, frame.tobytes()) for length, frame in zip(lengths.tolist(), middle)]


def _frames(clips: Clips, row: int) -> np.ndarray:
    return clips.frames[clips.offsets[row] : clips.offsets[row + 1]]
