"""Augmentations, aware of the body against limited: one clip under draws of each, beside each other.

Left limbs are blue, right ones orange and dashed, whoever's they are by name, so that one sees what each does: aware
rotation turns a person anywhere about the vertical, limited a little about every axis; aware mirroring reflects space
and swaps names, limited only swaps names, which turns no body into another; aware scaling lengthens the bones of a
part, limited the coordinates of its joints, which tears it off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from reports.bodies import draw_bodies, from_the_front
from reports.masks import liveliest
from reports.style import LABEL, titled
from skeletons.augment import Augmentation, AugmentConfig
from skeletons.clips import Clips
from skeletons.errors import BadInput, unknown
from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, centre_view
from skeletons.streams import JOINT
from skeletons.topology import Topology
from sweeps.config import Config
from sweeps.identity import data_of

MANY = 8  # moments, and draws
ROW, WIDTH = 1.33, 11.5  # inches
SPACE = 2.1  # from one body to the next, in halves of its place
GHOST = "#c8c8c8"  # the clip as it is, behind
TURN = np.radians(20)  # so that one sees which way a body faces
WHAT = ("rotation", "mirroring", "scaling")
STRENGTH = ("yaw", "tilt", "limited_angle", "scale_low", "scale_high")
ROWS = [(what, kind) for what in WHAT for kind in ("aware", "limited")]


def augmented(
    joints: np.ndarray, config: AugmentConfig, topology: Topology, what: str, kind: str, seed: int, count: int = MANY
) -> np.ndarray:
    """Draws of one augmentation, the others left out: (draw, frame, joint, 3).

    Args:
        joints: (frame, joint, 3), metres.
        config: the strengths.
        what: rotation, mirroring or scaling.
        kind: aware or limited.
    """
    alone: dict[str, Any] = {**dict.fromkeys(WHAT, "none"), what: kind, "probability": 1.0}
    strength = {name: getattr(config, name) for name in STRENGTH}
    augmentation = Augmentation(AugmentConfig(**alone, **strength), topology)
    given = torch.from_numpy(joints).float()[None, None].expand(count, 1, -1, -1, -1)
    seen = torch.ones(given.shape[:-1], dtype=torch.bool)
    return augmentation(given, seen, 1, Draws(seed, "augmentations"))[0][:, 0].numpy()


def augmentation_gallery(config: Config, wanted: dict[str, str]) -> Figure:
    """Three augmentations, each aware and limited, under the clip as it is.

    Args:
        wanted: `clip` and `seed`, where the command line has them.

    Raises:
        BadInput: an unknown clip, or one in which nobody is seen.
    """
    data, _ = data_of(config)
    joints, seen, name = clip_of(data, config, wanted)
    topology, seed = data.topology, int(wanted.get("seed", 0))
    moments = np.linspace(0, len(joints) - 1, MANY).round().astype(int)
    middle = _pose(joints, topology)
    figure = Figure(figsize=(WIDTH, ROW * (1 + len(ROWS)) + 1.0), layout="constrained")
    panels = figure.subplots(1 + len(ROWS), 1)
    frame = _camera(joints, seen, topology)
    half = 0.6 * float(np.quantile(np.ptp(joints[..., 1], axis=1), 0.9))

    def row(number: int, label: str, bodies: np.ndarray, at: np.ndarray, names: np.ndarray | None = None) -> None:
        there = seen[at] if names is None else seen[at][:, names]
        _bodies(panels[number], bodies @ frame, joints[at] @ frame, there, topology, half, ghost=number > 0)
        panels[number].set_ylabel(label, fontsize=LABEL)

    row(0, "as it is,\nover time", joints[moments], moments)
    panels[0].xaxis.tick_top()
    panels[0].set_xticks(SPACE * half * np.arange(MANY), [f"frame {moment + 1}" for moment in moments])
    panels[0].tick_params(length=0, pad=0)
    for number, (what, kind) in enumerate(ROWS, 1):
        drawn = augmented(joints, config.augment, topology, what, kind, seed)
        if what == "mirroring":  # there is one mirror image: it is shown over time
            row(number, f"{what},\n{kind}", drawn[0][moments], moments, np.array(topology.mirror))
        else:
            row(number, f"{what},\n{kind}", drawn[:, middle], np.full(MANY, middle))
    a = config.augment
    titled(
        figure,
        f"Augmentations, aware of the body and limited: {data.name}, clip {name}",
        f"rotation by at most {np.degrees(a.yaw):.0f}° about the vertical, {np.degrees(a.tilt):.0f}° about other axes "
        f"(aware), {np.degrees(a.limited_angle):.0f}° about each (limited); scaling by {a.scale_low:g} to "
        f"{a.scale_high:g}, of bones (aware) or of coordinates (limited)",
        f"mirroring over time, rotation and scaling as draws of frame {middle + 1}; grey: as it is; left limbs blue, "
        "right ones orange and dashed",
    )
    return figure


def clip_of(data: Clips, config: Config, wanted: dict[str, str]) -> tuple[np.ndarray, np.ndarray, str]:
    """The first person of a clip: joints (frame, joint, 3), observed, and the clip's name.

    Raises:
        BadInput: an unknown clip, or one in which nobody is seen.
    """
    names = [str(n) for n in data.table["clip"]]
    if wanted.get("clip", names[0]) not in names:
        raise unknown("clip", wanted["clip"], names[:20])
    row = names.index(wanted["clip"]) if "clip" in wanted else liveliest(data)
    view = centre_view(ClipTensors(data), torch.tensor([row]), config.views, stream=JOINT)
    joints, seen = view.joints[0, 0].numpy(), view.observed[0, 0].numpy()
    if not seen.any():
        raise BadInput(f"data {data.name}, clip {names[row]}: nobody is seen in it; choose another")
    return joints, seen, names[row]


def _pose(joints: np.ndarray, topology: Topology) -> int:
    """The frame in which the left and the right half of the body are least alike."""
    centred = joints - joints[:, topology.root : topology.root + 1]
    other = centred[:, list(topology.mirror)] * np.array([-1.0, 1, 1])
    return int(np.linalg.norm(centred - other, axis=-1).sum(1).argmax())


def _camera(joints: np.ndarray, seen: np.ndarray, topology: Topology) -> np.ndarray:
    """(3, 2): the projection by which the clip as it is looks almost at the viewer; all bodies have the same."""
    turned = from_the_front(joints[:, None], seen[:, None], topology, TURN)
    return np.linalg.lstsq(joints.reshape(-1, 3).astype(float), turned.reshape(-1, 2).astype(float), rcond=None)[0]


def _bodies(
    axes: Axes,
    points: np.ndarray,
    before: np.ndarray,
    seen: np.ndarray,
    topology: Topology,
    half: float,
    ghost: bool,
) -> None:
    """Bodies beside each other, each with its root in the place that it has without augmentation.

    Args:
        points: (body, joint, 2).
        before: the same without augmentation, drawn behind them where `ghost` says so.
        seen: bool (body, joint).
        half: of a body's place, in metres.
    """
    centre = (before.max(1) + before.min(1)) / 2
    centre[:, 0] -= SPACE * half * np.arange(len(points))
    root = slice(topology.root, topology.root + 1)
    points = points - points[:, root] + before[:, root] - centre[:, None]
    if ghost:
        lines = (before - centre[:, None])[:, np.array(topology.bones)].reshape(-1, 2, 2)
        axes.add_collection(LineCollection(list(lines), colors=GHOST, linewidths=1.6))
    draw_bodies(axes, points[:, None], seen[:, None], topology, 1.6, sides=True)
    across = SPACE * half * (len(points) - 1)
    axes.set(xlim=(-half, across + half), ylim=(-half, half), xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
