"""NTU's `.skeleton` files: every habit of the sensor is read, every step says what it did, and damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut, Recording
from skeletons.sources.ntu_bodies import Selection, actors, motion
from skeletons.sources.ntu_skeleton import Ntu60, Ntu120, Options, missing_names
from skeletons.sources.ntu_text import Body, _decimals, parse
from tests.skeletons import ntu_files as ntu
from tests.skeletons.mutants import Copy, Damage, Replace, fuzz

A, B, C, D = (ntu.FIRST_ID + n for n in range(4))


def read(folder: Path, seen, stem: str = ntu.name(1, 1), kind=Ntu60, **options: object) -> Recording:
    ntu.write(folder, stem, seen)
    source = kind(folder, Options(**options))
    return source.read(source.items()[-1])


def one(frames: int = 20) -> list[list[ntu.Seen]]:
    return ntu.scene(frames, (A, range(frames), ntu.person(frames, 0)))


# --- What a file says ---


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_coordinates_and_states_are_those_that_were_written(newline):
    seen = one()
    frames, (body,) = parse(ntu.text(seen, newline), "x")
    assert (frames, body.ident) == (20, str(A))
    np.testing.assert_array_equal(body.frames, np.arange(20))
    np.testing.assert_allclose(body.joints, [f[0][1] for f in seen], rtol=1e-6)
    np.testing.assert_array_equal(body.tracking, [f[0][2] for f in seen])
    values = [float(x) for x in ntu.text(seen, newline).splitlines()[4].split()[:3]]
    assert body.joints[0, 0].tolist() == np.float32(values).tolist()


def test_ids_that_differ_only_in_the_last_digit_are_two_bodies():
    assert float(A) == float(A + 1)
    seen = ntu.scene(20, (A, range(20), ntu.person(20, 0)), (A + 1, range(20), ntu.person(20, 1, x=1)))
    assert len(parse(ntu.text(seen), "x")[1]) == 2


def test_small_numbers_with_exponents_trailing_blanks_and_words_in_unused_fields_are_read():
    content = ntu.text(one(), "\n")
    lines = content.split(b"\n")
    fields = lines[4].split(b" ")
    fields[0], fields[3] = b"-1.5e-05", b"-1.#IND"
    lines[4] = b" ".join(fields) + b"  "
    _, (body,) = parse(b"\n".join(lines) + b"\n\n", "x")
    assert body.joints[0, 0, 0] == np.float32(-1.5e-05)
    _, (before,) = parse(content, "x")
    np.testing.assert_array_equal(body.joints[1:], before.joints[1:])


def test_a_name_gives_the_columns(tmp_path):
    found = read(tmp_path, one(), "S003C002P017R002A045")
    assert found.name == "S003C002P017R002A045"
    assert found.label == 44
    assert found.columns == {"setup": 3, "camera": 2, "subject": 17, "repetition": 2}
    assert found.joints.shape == (20, 2, 25, 3)
    assert found.tracking.shape == (20, 2, 25)
    assert set(np.unique(found.tracking[:, 0])) == {0, 1, 2}
    assert not found.joints[:, 1].any()
    assert found.notes == ()


@pytest.mark.parametrize(
    ("kind", "stem", "words"),
    [
        (Ntu60, "S001C001P001R001A061", "no action 61"),
        (Ntu60, "S001C004P001R001A001", "no camera 4 .*1-3"),
        (Ntu60, "S001C001P041R001A001", "no subject 41"),
        (Ntu120, "S018C001P041R001A060", "no action 60 in setup 18 .*61-120"),
        (Ntu120, "S001C001P041R001A061", "no action 61 in setup 1 "),
        (Ntu120, "S033C001P041R001A061", "no setup 33"),
        (Ntu60, "S001C001P001R001", "is not named SsssCcccPpppRrrrAaaa"),
        (Ntu60, "copy of S001C001P001R001A001", "is not named"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path, kind, stem, words):
    with pytest.raises(BadInput, match=words) as caught:
        read(tmp_path, one(), stem, kind)
    assert stem in str(caught.value)


def test_of_mixed_files_ntu60_takes_its_own(tmp_path):
    with pytest.raises(LeftOut, match="NTU RGB\\+D 120"):
        read(tmp_path, one(), "S018C001P041R001A061")
    assert read(tmp_path, one(), "S018C001P041R001A061", Ntu120).label == 60


# --- What is left out ---


def test_the_authors_lists_have_302_and_535_names():
    names = missing_names("official")
    assert len(names) == 535
    assert sum(int(name[1:4]) <= 17 for name in names) == 302
    assert {"S001C002P005R002A008", "S017C003P020R001A059", "S032C003P067R002A077"} <= names


def test_a_listed_recording_is_left_out_whatever_its_content(tmp_path):
    stem = "S001C002P005R002A008"
    with pytest.raises(LeftOut, match="list of missing or incomplete"):
        read(tmp_path, one(), stem)
    assert read(tmp_path, one(), stem, missing="none").name == stem


def test_a_list_of_ones_own(tmp_path):
    (tmp_path / "list.txt").write_text("some words\n\nS001C001P001R001A001.skeleton\r\nS001C001P002R001A001\n")
    assert missing_names(str(tmp_path / "list.txt")) == {"S001C001P001R001A001", "S001C001P002R001A001"}
    (tmp_path / "none.txt").write_text("nothing\n")
    with pytest.raises(BadInput, match=r"none.txt: has no names like"):
        missing_names(str(tmp_path / "none.txt"))
    with pytest.raises(BadInput, match="no such file"):
        missing_names("gone.txt")


@pytest.mark.parametrize(("seen", "words"), [([], "no frames"), ([[], []], "no body in any frame")])
def test_files_without_anybody_are_left_out_with_the_reason(tmp_path, seen, words):
    with pytest.raises(LeftOut, match=words):
        read(tmp_path, seen)


# --- From bodies to actors ---


def reference(frames: int, bodies: list[Body]) -> np.ndarray:
    """(frame, 150): the common pipeline, step by step and slowly, from our notes (facts/data.md, 3.3)."""
    occupied = sorted({int(f) for b in bodies for f in b.frames})
    number = {f: n for n, f in enumerate(occupied)}
    data = {b.ident: [number[int(b.frames[0])] + np.arange(len(b.frames)), b.joints] for b in bodies}
    if len(data) > 1:
        move = {k: sum(np.var(j.reshape(-1, 3)[:, c].astype(float)) for c in range(3)) for k, (_, j) in data.items()}
        data = {k: v for k, v in data.items() if len(v[1]) > 11}
        left = dict(data)
        for k, (_, joints) in data.items():
            if len(left) == 1:
                break
            good = [j for j in joints if np.ptp(j[:, 0]) <= 0.8 * np.ptp(j[:, 1])]
            noisy = 1 - len(good) / len(joints)
            if noisy >= 0.69754:
                del left[k]
            elif noisy:
                move[k] = min(move[k], motion(np.array(good)))
        data = dict(sorted(left.items(), key=lambda kv: -move[kv[0]]))
    out = np.zeros((len(occupied), 150), np.float32)
    spans = [None, [0, 0]]
    for interval, joints in data.values():
        start, end = interval[0], interval[-1]
        for slot in (0, 1):
            span = spans[slot]
            if span is None or min(span[1], end) - max(span[0], start) <= 0:
                out[start : end + 1, 75 * slot : 75 * slot + 75] = joints.reshape(-1, 75)
                spans[slot] = [start, end] if span is None else [min(span[0], start), max(span[1], end)]
                break
    return out[out.sum(1) != 0]


@pytest.mark.parametrize("seed", range(40))
def test_the_default_is_the_common_pipeline(seed):
    """Random scenes: up to five bodies, some short, some wide, some lost and found, frames without anybody."""
    rng = np.random.default_rng(seed)
    frames = int(rng.integers(30, 60))
    people = []
    for n in range(int(rng.integers(1, 6))):
        first = int(rng.integers(0, frames - 13))
        when = np.arange(first, int(rng.integers(first + 5, frames)))
        if n == 0:  # somebody stays, as the pipeline has no guard against dropping all
            when = np.arange(first, first + 13)
        elif rng.random() < 0.4:
            when = when[(when < first + 4) | (when > first + 8)]
        joints = ntu.person(len(when), seed * 7 + n, x=0.5 * n, speed=float(rng.uniform(0, 3)), wide=rng.random() < 0.2)
        people.append((A + n, when, joints))
    total, bodies = parse(ntu.text(ntu.scene(frames, *people)), "x")
    joints, _, _ = actors(total, bodies, Selection())
    np.testing.assert_array_equal(joints.reshape(-1, 150), reference(total, bodies))


def test_frames_without_bodies_are_dropped_or_stay(tmp_path):
    seen = ntu.scene(20, (A, [*range(3, 10), *range(12, 20)], ntu.person(15, 0)))
    found = read(tmp_path, seen)
    assert len(found.joints) == 15
    assert found.notes == ("dropped 5 frames without a body",)
    found = read(tmp_path, seen, drop_empty=False, close_gaps=False, drop_unseen=False)
    assert len(found.joints) == 20
    assert np.flatnonzero(found.joints[:, 0].any((1, 2))).tolist() == [*range(3, 10), *range(12, 20)]


def test_a_body_that_returns_closes_its_gap_or_keeps_its_time(tmp_path):
    other = (B, range(40), ntu.person(40, 1, x=1, speed=0.1))
    gone = (A, [*range(15), *range(25, 40)], ntu.person(30, 0, speed=3))
    found = read(tmp_path, ntu.scene(40, other, gone))
    assert "1 body vanished and returned: the gap was closed" in found.notes
    np.testing.assert_allclose(found.joints[:30, 0], gone[2], rtol=1e-5)
    assert not found.joints[30:, 0].any()
    found = read(tmp_path, ntu.scene(40, other, gone), close_gaps=False)
    np.testing.assert_allclose(found.joints[25:, 0], gone[2][15:], rtol=1e-5)
    assert not found.joints[15:25, 0].any()


def test_short_wide_and_still_bodies_are_dropped_each_by_its_filter(tmp_path):
    main = (A, range(40), ntu.person(40, 0, speed=2))
    short = (B, range(5), ntu.person(5, 1, x=1))
    chair = (C, range(40), ntu.person(40, 2, x=-1, wide=True))
    statue = (D, range(40), np.repeat(ntu.person(1, 3, x=2), 40, 0) * np.float32(0.2))
    everyone = ntu.scene(40, main, short, chair, statue)
    found = read(tmp_path, everyone)
    assert found.notes[:2] == ("dropped 1 body by length", "dropped 1 body by spread")
    np.testing.assert_allclose(found.joints[:, 0], main[2], rtol=1e-5)
    np.testing.assert_allclose(found.joints[:, 1], statue[2], rtol=1e-5)
    found = read(tmp_path, everyone, motion_filter=True)
    assert found.notes[2] == "dropped 1 body by motion"
    assert not found.joints[:, 1].any()
    off = read(tmp_path, everyone, length_filter=False, spread_filter=False)
    assert any(note.startswith("left out") for note in off.notes)


def test_all_bodies_short_keeps_the_longest(tmp_path):
    seen = ntu.scene(10, (A, range(6), ntu.person(6, 0)), (B, range(10), ntu.person(10, 1, x=1)))
    found = read(tmp_path, seen)
    assert len(found.joints) == 10
    assert found.notes == ("dropped 1 body by length",)


def test_a_person_who_gets_a_new_id_stays_one_actor(tmp_path):
    walk = ntu.person(40, 0, speed=2)
    seen = ntu.scene(40, (A, range(20), walk[:20]), (B, range(20, 40), walk[20:]))
    found = read(tmp_path, seen)
    np.testing.assert_allclose(found.joints[:, 0], walk, rtol=1e-5)
    assert not found.joints[:, 1].any()
    assert found.notes == ("1 body put in the place of another that was there at another time",)
    assert read(tmp_path, seen, merge=False).joints[:, 1].any()


def test_of_three_at_once_the_two_that_move_most_are_kept(tmp_path):
    people = [(A + n, range(30), ntu.person(30, n, x=n, speed=s)) for n, s in enumerate((0.5, 6, 3))]
    found = read(tmp_path, ntu.scene(30, *people))
    np.testing.assert_allclose(found.joints[:, 0], people[1][2], rtol=1e-5)
    np.testing.assert_allclose(found.joints[:, 1], people[2][2], rtol=1e-5)
    assert found.notes == ("left out 1 body: both places are taken by more moving ones",)


def test_untracked_joints_can_be_hidden(tmp_path):
    found, shown = read(tmp_path, one(), hide_untracked=True), read(tmp_path, one())
    hidden = shown.tracking[:, 0] == 0
    assert hidden.any()
    assert not found.joints[:, 0][hidden].any()
    np.testing.assert_array_equal(found.joints[:, 0][~hidden], shown.joints[:, 0][~hidden])
    assert found.notes == (f"hid {hidden.sum()} joints that were not tracked",)


def test_centring_subtracts_the_spine_of_actor_1_in_its_first_frame(tmp_path):
    seen = ntu.scene(30, (A, range(30), ntu.person(30, 0, speed=3)), (B, range(5, 25), ntu.person(20, 1, x=1)))
    plain, centred = read(tmp_path, seen), read(tmp_path, seen, centre=True)
    there = (plain.joints != 0).any(-1, keepdims=True)
    expected = np.where(there, plain.joints - plain.joints[0, 0, 1], 0)
    np.testing.assert_allclose(centred.joints, expected, atol=1e-8)
    np.testing.assert_array_equal((centred.joints != 0).any(-1, keepdims=True), there)


# --- Damage ---


def changed(line: int, new: bytes):
    def damage(lines: list[bytes]) -> list[bytes]:
        return [*lines[: line - 1], new, *lines[line:]]

    return damage


def field(line: int, number: int, new: bytes):
    def damage(lines: list[bytes]) -> list[bytes]:
        fields = lines[line - 1].split(b" ")
        fields[number] = new
        return changed(line, b" ".join(fields))(lines)

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda lines: [], "is empty"),
        (lambda lines: lines[:100], "line 100: ends in frame 4 of 20, body 1 of 1; the file is truncated"),
        (lambda lines: lines[:57], "line 57: ends in frame 2 of 20; the file is truncated"),
        (changed(1, b"21"), "ends in frame 20 of 21"),
        (changed(1, b"19"), "line 534: goes on after the last of 19 frames"),
        (changed(1, b"many"), "line 1: expected the number of frames, found 'many'"),
        (changed(1, b"-1"), "line 1: expected the number of frames"),
        (changed(2, b"2"), "line 30: expected a bodyID and 9 numbers, found '1'"),
        (changed(2, b"0"), "line 3: expected the number of bodies in frame 2"),
        (changed(4, b"24"), "line 4: 24 joints, expected 25"),
        (changed(4, b""), "line 4: expected the number of joints, found ''"),
        (changed(5, b"0.1 0.2 3"), "line 5: 3 fields, expected 12"),
        (lambda lines: [*lines[:9], *lines[10:]], "line 30: expected the number of bodies in frame 2"),
        (field(7, 1, b"O.5"), "line 7: field 2 is 'O.5', expected a number"),
        (field(7, 1, b"nan"), "line 7: field 2 is 'nan'"),
        (field(7, 2, b"inf"), "line 7: field 3 is 'inf'"),
        (field(7, 2, b"1e400"), "line 7: field 3 is '1e400'"),
        (field(7, 2, b"+1.5"), "line 7: field 3"),
        (field(7, 2, b"1.2.3"), "line 7: field 3"),
        (field(7, 2, b"1-2"), "line 7: field 3"),
        (field(7, 2, b""), "line 7: field 3 is ''"),
        (field(7, 0, b"0x1"), "line 7: field 1"),
        (field(7, 2, b"3785547"), "line 7: joint 3 is 100 m away or farther"),
        (field(7, 5, b"blue"), "line 7: field 6 is 'blue'"),
        (field(7, 11, b"3"), "line 7: tracking state '3'"),
        (field(3, 0, b"7x"), "line 3: expected a bodyID"),
        (field(3, 9, b"2 2"), "line 3: expected a bodyID and 9 numbers"),
    ],
)
def test_damage_is_one_line_that_names_the_file_and_its_line(damage, words):
    lines = ntu.text(one(), "\n").split(b"\n")[:-1]
    with pytest.raises(BadInput, match=words) as caught:
        parse(b"\n".join(damage(lines)), "some/file.skeleton")
    assert str(caught.value).startswith("some/file.skeleton")
    assert "\n" not in str(caught.value)


def test_a_body_that_is_in_a_frame_twice_is_damage():
    seen = ntu.scene(20, (A, range(20), ntu.person(20, 0)), (A, [7], ntu.person(1, 1)))
    with pytest.raises(BadInput, match=f"line {1 + 7 * 28 + 1 + 27 + 1}: body {A} is in frame 8 twice"):
        parse(ntu.text(seen), "x")


def harm(content: bytes) -> st.SearchStrategy[Damage]:
    """Damage that leaves no well-formed file with other numbers in it (another digit or sign cannot be noticed)."""
    size, lines = len(content), content.split(b"\n")[:-1]
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)]).tolist()
    place, line = st.integers(0, size - 1), st.integers(0, len(lines) - 1)
    wrong = st.sampled_from([bytes([b]) for b in b"xXeEnN +_,;:/\n\r\t\x00\xff"])
    return st.one_of(
        st.builds(Replace, place, st.just(1), wrong),
        st.builds(Replace, place, st.just(0), wrong),
        line.map(lambda n: Replace(starts[n], starts[n + 1] - starts[n])),
        line.map(lambda n: Copy(starts[n], starts[n + 1] - starts[n], starts[n + 1])),
        st.builds(Replace, place, st.integers(300, 2999)),
        place.map(lambda at: Replace(at, size - at)),
        st.builds(Copy, place, st.integers(500, 4999), place, st.just(b"\n")),
    )


@pytest.mark.parametrize("seed", range(3))
def test_mutated_files_give_the_same_values_or_are_refused(seed):
    people = [(A, range(12), ntu.person(12, 0)), (B, range(4, 9), ntu.person(5, 1, x=1))]
    content = ntu.text(ntu.scene(14, *people), "\r\n" if seed % 2 else "\n")
    frames, bodies = parse(content, "x")
    refused = 0

    def check(harmed: bytes) -> None:
        nonlocal refused
        try:
            again, others = parse(harmed, "x")
        except BadInput as error:
            refused += 1
            assert "\n" not in str(error)
            return
        assert again == frames
        assert [b.ident for b in others] == [b.ident for b in bodies]
        for one_body, other in zip(bodies, others):
            np.testing.assert_array_equal(other.frames, one_body.frames)
            np.testing.assert_array_equal(other.joints, one_body.joints)
            np.testing.assert_array_equal(other.tracking, one_body.tracking)

    fuzz(content, check, 250, harm(content).map(lambda damage: [damage]), start=seed)
    assert refused > 200


def test_decimals_are_the_nearest_floats():
    """Bit for bit what `float` makes of them, which is 10 times as slow."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 4000) * 10.0 ** rng.integers(-9, 3, 4000)
    forms = ["%.7g", "%.9g", "%.15g", "%.17g", "%.3f", "%d"]
    words = [forms[n % 6] % v for n, v in enumerate(values)] + ["0", "-0", "0.0", "-0.5", "123456789012345.5", "5"]
    content = " ".join(words).encode() + b" "
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == 32)
    found = _decimals(content, np.frombuffer(content, np.uint8), np.concatenate([[0], ends[:-1] + 1]), ends)
    np.testing.assert_array_equal(found.view(np.int64), np.array([float(w) for w in words]).view(np.int64))


@pytest.mark.parametrize("word", ["-", ".", "1.", ".5", "-.5", "1.2.3", "1-2", "--1", "1e5", "1e-5x", "e-05", "", "+1"])
def test_what_is_no_number_is_none(word):
    content = f"1.5 {word} 2 ".encode()
    letters = np.frombuffer(content, np.uint8)
    begins, ends = np.array([0, 4, 5 + len(word)]), np.array([3, 4 + len(word), 6 + len(word)])
    assert _decimals(content, letters, begins, ends) is None
