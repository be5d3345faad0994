"""Clips as they are drawn: which ones, from where, their sides told apart, and the animation that goes with them."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from reports import figures
from reports.bodies import LEFT, RIGHT, draw_bodies, from_the_front
from reports.recorded import chosen, clip_animation, clip_gallery, moments
from skeletons.errors import BadInput
from skeletons.sources import open_clips
from skeletons.sources.demo import DemoSpec, generate
from skeletons.topology import KINECT_V1, KINECT_V2
from sweeps.composing import compose


@pytest.fixture
def line(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.setenv("SKELBENCH_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "tiny.npz", **generate(DemoSpec(subjects=4, cameras=1, repetitions=1)))
    return ["data=archive", f"data.file={tmp_path / 'tiny.npz'}", "data.split=xsub"]


def test_written_as_picture_and_animation(line, tmp_path):
    from PIL import Image

    assert figures.main([*line, "figure=clips", "clips=2", "class=wave", f"out={tmp_path / 'out'}"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        f"clips-archive-wave.{s}" for s in ("gif", "pdf", "png")
    ]
    pixels = imread(tmp_path / "out" / "clips-archive-wave.png")[..., :3]
    ink = (pixels < 0.9).any(-1)
    assert 0.005 < ink.mean() < 0.5 and min(pixels.shape[:2]) > 300
    assert not ink[0].any() and not ink[-1].any() and not ink[:, 0].any() and not ink[:, -1].any(), "cut off at an edge"
    with Image.open(tmp_path / "out" / "clips-archive-wave.gif") as moving:
        assert moving.n_frames > 5 and moving.info["loop"] == 0
        first = np.asarray(moving.convert("RGB")).astype(int)
        moving.seek(moving.n_frames // 2)
        assert (np.abs(np.asarray(moving.convert("RGB")).astype(int) - first) > 60).any(), "nobody moves"


def test_a_clip_of_one_frame_and_of_two_persons_are_drawn(line, tmp_path, clips, monkeypatch):
    monkeypatch.setattr("reports.recorded.open_clips", lambda config: clips)
    config = compose(line)
    drawn = clip_gallery(config, {"clip": "clip00,clip09,clip11"})
    assert len(drawn.axes) == 3 and "clip00, 1 frames" in drawn.axes[0].get_title(loc="left")
    assert "two persons" in drawn.get_suptitle() and "one person" in drawn.get_suptitle()
    clip_animation(config, {"clip": "clip00,clip02"}, tmp_path / "two.gif")
    assert (tmp_path / "two.gif").stat().st_size > 1000


def test_a_row_says_what_it_shows_and_when(line):
    config = compose(line)
    clips = open_clips(config.data)
    drawn = clip_gallery(config, {"clips": "3"})
    rows = chosen(clips, {"clips": "3"}, 6)
    for axes, row in zip(drawn.axes, rows):
        title = axes.get_title(loc="left")
        assert clips.class_names[clips.labels[row]] in title and str(clips.table["clip"][row]) in title
        last = axes.get_xticklabels()[-1].get_text()
        assert (
            last == f"{(clips.lengths[row] - 1) / clips.fps:.2f} s" and axes.get_xticklabels()[0].get_text() == "0.00 s"
        )


def test_clips_are_of_different_classes_and_the_same_for_a_seed(line):
    clips = open_clips(compose(line).data)
    rows = chosen(clips, {"clips": "12"}, 6)
    assert sorted(clips.labels[rows]) == list(range(12))
    assert np.array_equal(rows, chosen(clips, {"clips": "12", "seed": "0"}, 6))
    assert not np.array_equal(rows, chosen(clips, {"clips": "12", "seed": "1"}, 6))
    assert len(chosen(clips, {}, 6)) == 6
    assert set(clips.labels[chosen(clips, {"class": "jump"}, 6)]) == {clips.class_names.index("jump")}
    assert len(chosen(clips, {"class": "jump", "clips": "40"}, 6)) == 4


def test_frames_shown_are_those_of_the_clip_and_gaps_are_not_drawn(clips):
    joints, observed, which = moments(clips, np.array([8, 9]), 7)
    assert which[0].tolist() == np.linspace(0, clips.lengths[8] - 1, 7).round().astype(int).tolist()
    start = clips.offsets[8]
    assert np.array_equal(joints[0], np.asarray(clips.frames)[start + which[0]])
    knee, head = KINECT_V2.joints.index("knee_left"), KINECT_V2.joints.index("head")
    gap = (which[0] >= 30) & (which[0] < 50)
    assert gap.any() and observed[0, :, 0, knee].tolist() == (~gap).tolist()
    assert not observed[1, :, 0, head].any()


def test_left_is_blue_and_right_orange_and_dashed(rng):
    body = (KINECT_V1.ancestry.astype(float) @ rng.normal(0, 0.2, (20, 3)))[None, None, :, :2]
    axes = Figure().add_subplot()
    draw_bodies(axes, body, np.ones((1, 1, 20), bool), KINECT_V1, sides=True)
    looks = {}
    for lines in (c for c in axes.collections if isinstance(c, LineCollection)):
        for segment in lines.get_segments():
            for j, spot in enumerate(body[0, 0]):
                if np.allclose(spot, segment[0]):
                    looks[KINECT_V1.joints[j]] = to_hex(lines.get_color()[0]), lines.get_linestyle()[0][1] is not None
    for name, (colour, dashed) in looks.items():
        side = "left" if name.endswith("left") else "right" if name.endswith("right") else ""
        assert colour == {"left": LEFT, "right": RIGHT, "": "#222222"}[side] and dashed is (side == "right")
    assert len(looks) == 19


def test_turned_bodies_look_to_the_viewers_left():
    """Joints of a body that faces +z, its left at +x, its toes in front."""
    body = np.zeros((1, 1, 20, 3))
    where = {name: j for j, name in enumerate(KINECT_V1.joints)}
    for name, x in (("shoulder", 0.2), ("hip", 0.1), ("foot", 0.1)):
        for side, sign in (("left", 1), ("right", -1)):
            body[0, 0, where[f"{name}_{side}"]] = (sign * x, {"shoulder": 1.4, "hip": 0.9, "foot": 0.0}[name], 0)
    body[0, 0, [where["foot_left"], where["foot_right"]], 2] = 0.2
    seen = np.ones((1, 1, 20), bool)
    ahead, aside = (from_the_front(body, seen, KINECT_V1, turn)[0, 0] for turn in (0.0, np.pi / 2))
    assert ahead[where["shoulder_left"], 0] == pytest.approx(0.2) and aside[where["foot_left"], 0] == pytest.approx(
        -0.2
    )


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("clip=nobody", "unknown clip 'nobody'"),
        ("class=jmp", "did you mean 'jump'"),
        ("clips=many", "clips=many: write a whole number"),
        ("clips=0", "draw 1 to 40"),
        ("seed=-1", "seed=-1: write a whole number"),
    ],
)
def test_what_cannot_be_drawn_is_refused(line, wrong, said):
    with pytest.raises(BadInput, match=said):
        figures.main([*line, "figure=clips", wrong])
