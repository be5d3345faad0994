"""The text of NTU RGB+D's `.skeleton` files, as the Kinect v2 recorder wrote it (NTU RGB+D, Matlab/read_skeleton_file).

Line 1 is the number of frames. Each frame is a line with the number of bodies and for each body a line of 10 fields
(bodyID, clipedEdges, hand confidences and states, isRestricted, leanX, leanY, trackingState), a line with the number
of joints, 25, and 25 lines of 12 fields: x y z in metres, depth x y, colour x y, a quaternion, and the joint's tracking
state (0 none, 1 inferred, 2 tracked). Lines end in LF or CRLF.

A file of 230 kB is read in one conversion of its coordinates; only where its layout is not the usual one is each line
looked at, to say which is wrong. Every field is held to be a number, also those that are not kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from skeletons.errors import BadInput

JOINTS = 25
FIELDS = 12  # of a joint
FAR = 100.0  # metres; no Kinect sees that far, so a coordinate beyond it has lost its decimal point
# As C++ prints a float and no freer, so that a letter or sign in the wrong place is no number.
NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][+-]\d{2,3})?")
# What C's printf makes of a value that is none; allowed in the fields that are not kept.
WORD = re.compile(rb"[+-]?(nan|inf|infinity|1\.#(ind|inf|qnan|snan)\d*)(\(\w+\))?", re.IGNORECASE)
HEADER = re.compile(rb"(\d+)( (%b|%b)){9}\s*" % (NUMBER.pattern, WORD.pattern), re.IGNORECASE)
ORDINARY = np.zeros(256, bool)
ORDINARY[list(b"0123456789-.e \n")] = True


@dataclass(frozen=True)
class Body:
    """One bodyID of a recording.

    Attributes:
        ident: the sensor's name for it.
        frames: int64 (n), ascending, the frames it is in.
        joints: float32 (n, 25, 3), metres, y up.
        tracking: uint8 (n, 25), 0 none, 1 inferred, 2 tracked.
    """

    ident: str
    frames: np.ndarray
    joints: np.ndarray
    tracking: np.ndarray


def parse(data: bytes, place: str) -> tuple[int, list[Body]]:
    """Number of frames and the bodies, in the order in which they appear.

    Args:
        data: the file's content.
        place: the file, for messages.

    Raises:
        BadInput: the file is truncated or damaged; names the line.
    """
    ends = data.count(b"\n")
    lines = data.split(b"\r\n") if data.count(b"\r\n") == ends else data.replace(b"\r\n", b"\n").split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise BadInput(f"{place}: is empty; fetch it again")
    frames, rows, whose, when = _layout(lines, place)
    joints, tracking = _joints(lines, rows, place)
    bodies = []
    who, frame = np.array(whose, dtype=object), np.array(when, np.int64)
    for ident in dict.fromkeys(whose):
        mine = np.flatnonzero(who == ident)
        if (np.diff(frame[mine]) < 1).any():
            twice = int(mine[1:][np.diff(frame[mine]) < 1][0])
            raise BadInput(
                f"{place}, line {rows[twice] - 1}: body {ident.decode()} is in frame {frame[twice] + 1} twice; "
                "the file is damaged, fetch it again"
            )
        bodies.append(Body(ident.decode(), frame[mine], joints[mine], tracking[mine]))
    return frames, bodies


def _layout(lines: list[bytes], place: str) -> tuple[int, list[int], list[bytes], list[int]]:
    """Number of frames; and of each body in each frame its first joint's line (from 0), its ID and its frame."""
    frames, at = _count(lines, 0, "the number of frames", place), 1
    rows, whose, when = [], [], []
    for frame in range(frames):
        if at >= len(lines):
            raise BadInput(f"{place}, line {at}: ends in frame {frame} of {frames}; the file is truncated, {AGAIN}")
        bodies = _count(lines, at, f"the number of bodies in frame {frame + 1}", place)
        at += 1
        for body in range(bodies):
            if at + 2 + JOINTS > len(lines):
                raise BadInput(
                    f"{place}, line {len(lines)}: ends in frame {frame + 1} of {frames}, body {body + 1} of {bodies}; "
                    f"the file is truncated, {AGAIN}"
                )
            header = HEADER.fullmatch(lines[at])
            if not header:
                raise BadInput(f"{place}, line {at + 1}: expected a bodyID and 9 numbers, found {_quote(lines[at])}")
            joints = JOINTS if lines[at + 1] == b"25" else _count(lines, at + 1, "the number of joints", place)
            if joints != JOINTS:
                raise BadInput(f"{place}, line {at + 2}: {joints} joints, expected {JOINTS}; the file is damaged")
            rows.append(at + 2)
            whose.append(header[1])
            when.append(frame)
            at += 2 + JOINTS
    if at != len(lines):
        raise BadInput(
            f"{place}, line {at + 1}: goes on after the last of {frames} frames; the number of frames or of bodies "
            f"is wrong, {AGAIN}"
        )
    return frames, rows, whose, when


AGAIN = "fetch it again"


def _count(lines: list[bytes], at: int, what: str, place: str) -> int:
    text = lines[at].strip()
    if not text.isdigit() or len(text) > 9:
        raise BadInput(f"{place}, line {at + 1}: expected {what}, found {_quote(lines[at])}; {AGAIN}")
    return int(text)


def _is_number(text: bytes) -> bool:
    return bool(NUMBER.fullmatch(text) or WORD.fullmatch(text))


def _joints(lines: list[bytes], rows: list[int], place: str) -> tuple[np.ndarray, np.ndarray]:
    """float32 (body in frame, 25, 3) and uint8 (body in frame, 25)."""
    if not rows:
        return np.empty((0, JOINTS, 3), np.float32), np.empty((0, JOINTS), np.uint8)
    usual = _usual(b"\n".join([b"\n".join(lines[r : r + JOINTS]) for r in rows]) + b"\n", len(rows) * JOINTS)
    values, states = usual if usual is not None else _each_line(lines, rows, place)
    wrong = ~(np.abs(values) < FAR).all(1)
    if wrong.any():
        row = int(np.argmax(wrong))
        line = rows[row // JOINTS] + row % JOINTS
        raise BadInput(
            f"{place}, line {line + 1}: joint {row % JOINTS + 1} is {FAR:.0f} m away or farther, no Kinect sees that; "
            f"the file is damaged, {AGAIN}"
        )
    return values.astype(np.float32).reshape(-1, JOINTS, 3), states.reshape(-1, JOINTS)


def _usual(text: bytes, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Coordinates float64 (count, 3) and states uint8 (count) of lines that have the usual layout; else None."""
    letters = np.frombuffer(text, np.uint8)
    if not ORDINARY[letters].all():
        return None
    gaps = np.flatnonzero(letters <= ord(" "))
    if len(gaps) != count * FIELDS or (np.diff(gaps, prepend=-1) < 2).any():
        return None  # another number of fields, or an empty one
    ends = gaps.reshape(count, FIELDS)
    if (letters[ends[:, -1]] != ord("\n")).any() or (letters[ends[:, :-1]] != ord(" ")).any():
        return None
    states = letters[ends[:, -2] + 1] - np.uint8(ord("0"))
    if (ends[:, -1] - ends[:, -2] != 2).any() or (states > 2).any():
        return None
    begins = np.concatenate([[0], gaps[:-1] + 1]).reshape(count, FIELDS)
    values = _decimals(text, letters, begins[:, :3].ravel(), ends[:, :3].ravel())
    return None if values is None else (values.reshape(count, 3), states)


def _decimals(text: bytes, letters: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """float64 numbers between two places each, all at once; None where one of them is no number.

    Digits are gathered into an integer and divided by a power of ten. Up to 15 digits both are exact, so that the
    quotient is the float that is nearest to the decimal, as `float` gives it; longer ones and exponents are left to it.
    """
    width = ends - begins
    columns = letters[np.minimum(begins + np.arange(width.max(initial=1))[:, None], len(letters) - 1)]
    number, decimals = np.zeros(len(begins), np.int64), np.zeros(len(begins), np.int64)
    point, plain = np.zeros(len(begins), bool), (width <= 16)
    minus = columns[0] == ord("-")
    for place, column in enumerate(columns[:16]):
        inside = place < width
        digit = inside & (column - np.uint8(ord("0")) < 10)  # smaller letters wrap around to large values
        dot = inside & (column == ord("."))
        plain &= digit | ~inside | (dot & ~point) | (minus if place == 0 else False)
        number = np.where(digit, 10 * number + (column - np.uint8(ord("0"))), number)
        point |= dot
        decimals += digit & point
    ends_well = letters[ends - 1] - np.uint8(ord("0")) < 10
    plain &= ends_well & (letters[begins + minus] - np.uint8(ord("0")) < 10) & (decimals <= 15)
    values = number / 10.0 ** np.minimum(decimals, 15)
    np.negative(values, out=values, where=minus)
    for odd in np.flatnonzero(~plain).tolist():
        field = text[begins[odd] : ends[odd]]
        if not NUMBER.fullmatch(field):
            return None
        values[odd] = float(field)
    return values


def _each_line(lines: list[bytes], rows: list[int], place: str) -> tuple[np.ndarray, np.ndarray]:
    """As `_usual`, line by line, which finds the one that is wrong."""
    values, states = [], []
    for row in rows:
        for at in range(row, row + JOINTS):
            fields = lines[at].rstrip().split(b" ")
            where = f"{place}, line {at + 1}"
            if len(fields) != FIELDS:
                raise BadInput(f"{where}: {len(fields)} fields, expected {FIELDS} of a joint; {AGAIN}")
            for number, field in enumerate(fields):
                if not (NUMBER.fullmatch(field) if number < 3 else _is_number(field)):
                    raise BadInput(f"{where}: field {number + 1} is {_quote(field)}, expected a number; {AGAIN}")
            if fields[-1] not in (b"0", b"1", b"2"):
                raise BadInput(f"{where}: tracking state {_quote(fields[-1])}, expected 0, 1 or 2; {AGAIN}")
            values.append([float(f) for f in fields[:3]])
            states.append(int(fields[-1]))
    return np.array(values, np.float64), np.array(states, np.uint8)


def _quote(text: bytes) -> str:
    """A piece of a file, fit to be shown in one line."""
    return ascii(text[:40].decode("latin-1")) + ("..." if len(text) > 40 else "")
