"""Recordings as they are: some clips as skeletons over time, and a few of them moving, so that a person sees whether
the joints are right.

A row is a clip, its frames beside each other, left limbs blue and solid, right ones orange and dashed. One person is
turned to look a little to the viewer's left, by the joints' own names: where those are right, toes point left.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from reports.bodies import DASHES, LEFT, RIGHT, draw_bodies, from_the_front
from reports.strips import FAR, side_by_side
from reports.style import FRAME, INK, titled
from skeletons.clips import Clips
from skeletons.errors import BadInput, unknown
from skeletons.randomness import permutation
from skeletons.sources import open_clips
from skeletons.survey import seen_in
from sweeps.config import Config

TURN = np.radians(35)  # towards a profile: enough to see where toes point, not so much that sides hide each other
MOMENTS = 61  # frames that a clip is reduced to, of which some are drawn
WIDTH, LENGTH, MOST = 12.5, 13.0, 10  # inches of the figure; metres of bodies in a row; most frames in it
MOVING, PACE, LASTS = 6, 12, 4.0  # clips in an animation, its frames a second, and how many seconds of a clip it has


def chosen(clips: Clips, wanted: dict[str, str], most: int) -> np.ndarray:
    """int64: numbers of the clips to draw: those named (`clip=a,b`), or as many as asked for, drawn at random from
    classes in turn.

    Raises:
        BadInput: an unknown clip or class, or a number that is none.
    """
    names = [str(name) for name in clips.table["clip"]]
    if "clip" in wanted:
        asked = wanted["clip"].split(",")
        for name in asked:
            if name not in names:
                raise unknown("clip", name, names[:20])
        return np.array([names.index(name) for name in asked])
    numbers = {}
    for key, default in (("clips", str(most)), ("seed", "0")):
        if not wanted.get(key, default).isdecimal():
            raise BadInput(f"{key}={wanted[key]}: write a whole number")
        numbers[key] = int(wanted.get(key, default))
    if not 1 <= numbers["clips"] <= 40:
        raise BadInput(f"clips={numbers['clips']}: draw 1 to 40")
    order = permutation(len(clips), numbers["seed"], "drawn clips")
    if "class" in wanted:
        if wanted["class"] not in clips.class_names:
            raise unknown("class", wanted["class"], clips.class_names)
        order = order[clips.labels[order] == clips.class_names.index(wanted["class"])]
        if not len(order):
            raise BadInput(f"data {clips.name} has no clip of class {wanted['class']!r}")
    turns = np.zeros(len(order), int)  # how many of its class come before it
    seen: dict[int, int] = {}
    for i, label in enumerate(clips.labels[order].tolist()):
        turns[i] = seen[label] = seen.get(label, -1) + 1
    return order[np.argsort(turns, kind="stable")][: numbers["clips"]]


def moments(clips: Clips, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames of clips, evenly spaced: joints (clip, moment, person, joint, 3), observed without the last dimension,
    and int64 (clip, moment), which frames of the clip they are."""
    joints, observed, which = [], [], []
    for row in rows:
        start, stop = int(clips.offsets[row]), int(clips.offsets[row + 1])
        at = np.linspace(0, stop - start - 1, count).round().astype(int)
        joints.append(np.asarray(clips.frames[start:stop])[at])
        observed.append(seen_in(clips, start, stop)[at])
        which.append(at)
    return np.stack(joints), np.stack(observed), np.stack(which)


def clip_gallery(config: Config, wanted: dict[str, str]) -> Figure:
    """A row for each clip.

    Args:
        wanted: `clips` (how many), `seed`, `class`, `clip`, where the command line has them.
    """
    clips = open_clips(config.data)
    rows = chosen(clips, wanted, 6)
    topology = clips.topology
    joints, observed, which = moments(clips, rows, MOMENTS)
    turn = np.where(observed[:, :, 1:].any((1, 2, 3)), 0.0, TURN)
    tree = np.array(topology.parents), np.array(topology.joints)
    points, seen, step = side_by_side(joints[None], observed[None], *tree, length=LENGTH, most=MOST, turn=turn)
    points, seen, frames = points[0], seen[0], points.shape[2]
    which = which[:, np.linspace(0, MOMENTS - 1, frames).round().astype(int)]
    high = 1.0
    for p, s in zip(points, seen):  # the lowest foot of each row stands on its floor
        if s.any():
            low, middle, top = np.quantile(p[..., 1][s], [0.01, 0.5, 0.99])
            p[..., 1] -= max(p[..., 1][s].min(), middle - FAR * (middle - low))
            high = max(high, min(p[..., 1][s].max(), FAR * (top - low)))
    high, low = 1.05 * high, -0.05 * high
    row = (WIDTH - 0.3) * (high - low) / (step * frames) + 0.42
    figure = Figure(figsize=(WIDTH, row * len(rows) + 0.85), layout="constrained")
    for i, clip in enumerate(rows.tolist()):
        axes = figure.add_subplot(len(rows), 1, i + 1)
        for line in range(1, frames):
            axes.axvline((line - 0.5) * step, color="#ececec", linewidth=0.6, zorder=0)
        draw_bodies(axes, points[i], seen[i], topology, 1.4, sides=True)
        axes.set(xlim=(-step / 2, step * (frames - 0.5)), ylim=(low, high), yticks=[])
        axes.set_aspect("equal")
        ticks = [f"{f / clips.fps:.2f} s" for f in which[i]]
        axes.set_xticks(step * np.arange(frames), ticks, fontsize=7, color=INK)
        axes.tick_params(length=0, pad=1)
        axes.spines[:].set_color(FRAME)
        about = f"{clips.class_names[clips.labels[clip]]}: {clips.table['clip'][clip]}, {clips.lengths[clip]} frames"
        axes.set_title(about, loc="left", fontsize=8.5, pad=3)
    turned = []
    if turn.any():
        turned.append(
            "one person is turned, by the names of the joints, to look to the lower left: there toes should point"
        )
    if not turn.all():
        turned.append("two persons stand side by side, the first one left, their trunks black and grey")
    about = f"{len(rows)} clips of {clips.name}, {len(topology)} joints ({topology.name}), {clips.fps:g} frames/s"
    titled(figure, about, "; ".join(turned))
    figure.legend(handles=_legend(), loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    return figure


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=LEFT, label="left limbs"),
        Line2D([], [], color=RIGHT, linestyle=DASHES, label="right limbs"),
    ]


def clip_animation(config: Config, wanted: dict[str, str], path: Path | BinaryIO) -> None:
    """Write the first clips of the gallery as an animated GIF, at the speed of the recording: each from the front and,
    where one person is shown, from its left side too."""
    clips = open_clips(config.data)
    rows = chosen(clips, wanted, 6)[:MOVING]
    seconds = min(LASTS, float((clips.lengths[rows] / clips.fps).max()))
    times = np.arange(max(2, round(seconds * PACE))) / PACE
    panels = [_panel(clips, int(row), times) for row in rows]
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.4 * across, 2.9 * down + 0.5), layout="constrained")
    figure.legend(handles=_legend(), loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    places = [figure.add_subplot(down, across, i + 1) for i in range(len(panels))]
    for axes, row, (points, seen) in zip(places, rows, panels):
        _prepare(axes, clips, int(row), points[seen])
    figure.set_dpi(80)
    canvas, images = FigureCanvasAgg(figure), []
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)  # what stays is drawn once
    for moment in range(len(times)):
        canvas.restore_region(still)
        for axes, row, panel in zip(places, rows, panels):
            _show(axes, clips, int(row), panel, moment)
        images.append(Image.fromarray(np.array(canvas.buffer_rgba())).convert("RGB"))
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=round(1000 / PACE), loop=0)


def _panel(clips: Clips, row: int, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (moment, view * person, joint, 2) of a clip at these seconds, again from its start where it is over, and
    which of them were observed."""
    start, stop = int(clips.offsets[row]), int(clips.offsets[row + 1])
    joints, observed = np.asarray(clips.frames[start:stop]), seen_in(clips, start, stop)
    two = bool(observed[:, 1:].any())
    views = [from_the_front(joints, observed, clips.topology, turn) for turn in ((0.0,) if two else (0.0, np.pi / 2))]
    for view in views:
        spots = view[observed]
        view[..., 0] -= np.median(spots[:, 0]) if len(spots) else 0.0
    if not two:
        reach = [float(np.abs(np.quantile(v[observed][:, 0], [0.01, 0.99])).max()) for v in views]
        views[0][..., 0] -= reach[0] + 0.15
        views[1][..., 0] += reach[1] + 0.15
        views = [view[:, :1] for view in views]
    points = np.concatenate(views, axis=1)
    seen = observed if two else np.concatenate([observed[:, :1]] * 2, axis=1)
    at = (times * clips.fps).astype(int) % (stop - start)
    return points[at], seen[at]


def _prepare(axes: Axes, clips: Clips, row: int, shown: np.ndarray) -> None:
    """What stays from moment to moment."""
    middle = np.median(shown, 0) if len(shown) else np.zeros(2)
    reach = np.quantile(np.abs(shown - middle), 0.995, axis=0) * 1.15 if len(shown) else np.ones(2)
    half = max(float(reach[0]), float(reach[1]), 0.3)
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.spines[:].set_color(FRAME)
    axes.set_title(fill(clips.class_names[clips.labels[row]], 40), fontsize=8.5)
    views = "two persons" if clips.present[row, 1:].any() else "from the front, and from its left"
    axes.set_xlabel(f"{clips.table['clip'][row]}: {views}", fontsize=7, color=INK)


def _show(axes: Axes, clips: Clips, row: int, panel: tuple[np.ndarray, np.ndarray], moment: int) -> None:
    """The bodies at a moment, drawn at once and forgotten."""
    points, seen = panel
    two = clips.present[row, 1:].any()
    parts = [slice(None)] if two else [slice(view, view + 1) for view in range(points.shape[1])]
    for part in parts:
        now = points[moment : moment + 1, part], seen[moment : moment + 1, part]
        draw_bodies(axes, *now, clips.topology, 1.6, sides=True)
    for artist in [*axes.collections, *axes.lines]:
        axes.draw_artist(artist)
        artist.remove()
