"""The actions of the demo set: joint angles over time, for a right-handed person of average amplitude.

Angles are degrees, zero in the standing pose. Trunk: `lean` (with the pelvis, forward), `bend` (spine
forward), `side`, `twist` (to the left), `nod`. Arms: `raise` (upper arm away from the trunk), `out` (where:
0 forward, 90 sideways), `roll` (forearm inward about the upper arm), `elbow`. Legs: `hip` (thigh forward of
the vertical), `spread`, `knee`, `toe` (toes down). `flight` is the height of a jump in metres. `busy` of an
arm, 0 to 1, is how far the action has taken it over from its idle posture; its other angles are those of an
arm taken over. `hang` keeps an idle arm hanging down when the trunk bends; no action sets it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SIDES = ("left", "right")
TRUNK = ("lean", "bend", "side", "twist", "nod", "flight")
ARM = ("raise", "out", "roll", "elbow")
LEG = ("hip", "spread", "knee", "toe")
Angles = dict[str, np.ndarray]
Curves = dict[str, np.ndarray | float]  # an action's angles, (frames,) or held still


@dataclass(frozen=True)
class Stage:
    """What an action's curves depend on, all (frames,).

    Attributes:
        progress: 0 before the action, 1 after it.
        cycles: how often it repeats what it repeats (waves, claps, shakes).
        way: in [0, 1), which way of doing it (a stoop or a squat, a high or a low wave).
    """

    progress: np.ndarray
    cycles: np.ndarray
    way: np.ndarray

    def along(self, *knots: tuple[float, float]) -> np.ndarray:
        """(frames,) the smooth curve through knots (progress, value), constant beyond them."""
        curve = np.full_like(self.progress, knots[0][1])
        for (start, low), (end, high) in pairwise(knots):
            x = np.clip((self.progress - start) / (end - start), 0, 1)
            curve += (high - low) * x * x * (3 - 2 * x)
        return curve

    def hold(self, rise: float, fall: float) -> np.ndarray:
        """(frames,) up to 1 by `rise`, back to 0 from `fall` on."""
        return self.along((0, 0), (rise, 1), (fall, 1), (1, 0))

    def repeat(self, phase: float = 0.0) -> np.ndarray:
        """(frames,) the action's oscillation, -1 to 1."""
        return np.sin(2 * np.pi * (self.cycles * self.progress + phase))


def both(**angles: np.ndarray | float) -> Curves:
    """The same angles for the left and the right."""
    return {f"{name}_{side}": value for name, value in angles.items() for side in SIDES}


def stride(strides: np.ndarray, gain: np.ndarray) -> Curves:
    """Walking: `strides` full strides done so far (falling: backwards), `gain` from 0 (stand) to 1 (walk)."""
    swing, lift = np.sin(2 * np.pi * strides), np.cos(2 * np.pi * strides)
    return {
        "hip_right": gain * (22 * swing + 14 * np.maximum(lift, 0)),
        "hip_left": gain * (-22 * swing + 14 * np.maximum(-lift, 0)),
        "knee_right": gain * (6 + 42 * np.maximum(lift, 0)),
        "knee_left": gain * (6 + 42 * np.maximum(-lift, 0)),
    }


def drink(s: Stage) -> Curves:
    lift, tip = s.hold(0.3, 0.7), s.along((0.3, 0), (0.45, 1), (0.6, 1), (0.72, 0))
    return {
        "busy_right": lift, "raise_right": 40 + 14 * tip, "out_right": 22.0, "roll_right": 46.0,
        "elbow_right": 138 + 4 * tip, "nod": -14 * tip,
    }  # fmt: skip


def wave(s: Stage) -> Curves:
    up = s.hold(0.22, 0.8)
    return {
        "busy_right": up, "raise_right": 55 + 50 * s.way, "out_right": 70.0, "roll_right": 0.0,
        "elbow_right": 95 - 25 * s.way + 30 * s.repeat(), "side": -4 * up,
    }  # fmt: skip


def clap(s: Stage) -> Curves:
    up, apart = s.hold(0.2, 0.82), s.repeat(0.25)
    return {
        **both(busy=up, out=10.0, elbow=78 + 12 * s.way, roll=16 - 20 * apart),
        **both(**{"raise": 32 + 22 * s.way}),
    }


def throw(s: Stage) -> Curves:
    back = s.along((0, 0), (0.35, 1), (0.45, 1), (0.6, 0))
    front = s.along((0.45, 0), (0.6, 1), (0.7, 1), (1, 0))
    step = s.along((0.2, 0), (0.4, 1), (0.7, 1), (1, 0))
    return {
        "busy_right": np.clip(back + front, 0, 1),
        "raise_right": s.along((0.4, 95), (0.55, 110), (0.72, 45)),
        "out_right": s.along((0.4, 100), (0.58, 10), (0.75, -15)),
        "elbow_right": s.along((0.4, 105), (0.48, 105), (0.6, 15)),
        "roll_right": s.along((0.4, -10), (0.6, 10)),
        "twist": -32 * back + 28 * front, "lean": -8 * back + 16 * front, "bend": 12 * front,
        "hip_left": 24 * step, "knee_left": 10 * step, "hip_right": -12 * step, "knee_right": 8 * step,
        "toe_right": 18 * step,
    }  # fmt: skip


def kick(s: Stage) -> Curves:
    back = s.along((0.05, 0), (0.35, 1), (0.55, 0))
    front = s.along((0.35, 0), (0.56, 1), (0.66, 1), (1, 0))
    return {
        "hip_right": -28 * back + (62 + 22 * s.way) * front, "knee_right": 75 * back + 12 * front,
        "toe_right": 25 * (back + front), "hip_left": 5 * front, "knee_left": 12 * (back + front),
        "lean": 8 * back - 14 * front, "twist": -12 * back + 14 * front,
    }  # fmt: skip


def pick_up(s: Stage) -> Curves:
    down, reach = s.hold(0.42, 0.55), s.hold(0.35, 0.72)
    squat = 0.35 + 0.65 * s.way
    return {
        "lean": (70 - 28 * squat) * down, "bend": 40 * down, "nod": -14 * down,
        **both(hip=75 * squat * down, knee=112 * squat * down),
        "busy_right": reach, "raise_right": 18 + 64 * down, "out_right": 5.0, "roll_right": 5.0,
        "elbow_right": 12 + 40 * s.along((0.5, 0), (0.75, 1)),
    }  # fmt: skip


def _chair(seated: np.ndarray) -> Curves:
    """The way between standing (0) and seated (1): the trunk leans forward midway, the knees lead."""
    midway = 4 * seated * (1 - seated)
    return {
        **both(hip=84 * seated + 8 * midway, knee=84 * seated + 26 * midway),
        "lean": 30 * midway - 2 * seated, "bend": 12 * midway + 4 * seated, "nod": -6 * midway,
        **both(busy=seated, out=8.0, roll=15.0, elbow=48.0), **both(**{"raise": 22 + 14 * midway}),
    }  # fmt: skip


def sit_down(s: Stage) -> Curves:
    return _chair(s.along((0.05, 0), (0.95, 1)))


def stand_up(s: Stage) -> Curves:
    return _chair(s.along((0.05, 1), (0.95, 0)))


def jump(s: Stage) -> Curves:
    crouch = s.along((0, 0), (0.3, 1), (0.42, 0)) + s.along((0.62, 0), (0.75, 0.8), (1, 0))
    air = np.clip((s.progress - 0.4) / 0.26, 0, 1)
    arms = s.along((0.28, -35), (0.48, 105), (0.62, 60), (0.8, 10))
    return {
        **both(hip=42 * crouch, knee=72 * crouch, toe=60 * np.sqrt(air * (1 - air))),
        **both(busy=s.hold(0.25, 0.75), out=12.0, roll=10.0, elbow=22.0), **both(**{"raise": arms}),
        "lean": 28 * crouch, "bend": 8 * crouch, "flight": (0.9 + 0.6 * s.way) * air * (1 - air),
    }  # fmt: skip


def handshake(s: Stage) -> Curves:
    reach = s.hold(0.28, 0.75)
    shake = s.repeat() * s.along((0.25, 0), (0.35, 1), (0.65, 1), (0.75, 0))
    return {
        "busy_right": reach, "raise_right": 44 + 9 * shake, "out_right": -8.0, "roll_right": 5.0,
        "elbow_right": 38 + 10 * shake, "lean": 7 * reach, "twist": 8 * reach,
    }  # fmt: skip


def push(s: Stage) -> Curves:
    thrust = s.along((0.25, 0), (0.45, 1), (0.58, 1), (0.85, 0))
    return {
        **both(busy=s.hold(0.25, 0.7), out=5.0, roll=12.0, elbow=118 - 105 * thrust),
        **both(**{"raise": 22 + 50 * thrust}),
        "lean": -4 * s.hold(0.25, 0.3) + 16 * thrust, "hip_left": 22 * thrust, "knee_left": 14 * thrust,
        "hip_right": -10 * thrust, "toe_right": 10 * thrust,
    }  # fmt: skip


def pushed(s: Stage) -> Curves:
    hit = s.along((0.4, 0), (0.52, 1), (0.95, 0))
    moving = s.along((0.42, 0), (0.55, 0.8), (0.75, 0.8), (0.95, 0))
    return {
        **stride(-1.5 * s.along((0.42, 0), (0.95, 1)), moving),
        "lean": -16 * hit, "bend": 14 * hit, "nod": 12 * hit,
        **both(busy=hit, out=45.0, roll=20.0, elbow=45.0), **both(**{"raise": 42.0}),
    }  # fmt: skip


def hug(s: Stage) -> Curves:
    reach, close = s.hold(0.3, 0.78), s.along((0.22, 0), (0.45, 1), (0.7, 1), (0.85, 0))
    steps = 0.85 * s.hold(0.4, 0.7)
    moving = 0.75 * (s.hold(0.1, 0.9) - s.along((0.3, 0), (0.42, 1), (0.7, 1), (0.8, 0)))
    return {
        **stride(steps, moving), "lean": 4 * close, "bend": 6 * close, "side": 5 * close,
        **both(busy=reach, out=48 - 42 * close, roll=15 + 40 * close, elbow=25 + 48 * close),
        "raise_right": 78 * np.ones_like(close), "raise_left": 56 * np.ones_like(close),
    }  # fmt: skip


def idle(s: Stage) -> Curves:
    return {}


Role = Callable[[Stage], Curves]


@dataclass(frozen=True)
class Action:
    """A class: the actor's curves and, where two persons meet, the partner's, and how far apart they stand
    (in lengths of their arms, mean of the two)."""

    name: str
    actor: Role
    partner: Role | None = None
    gap: float = 0.0


ACTIONS = (
    Action("drink", drink),
    Action("wave", wave),
    Action("clap", clap),
    Action("throw", throw),
    Action("kick", kick),
    Action("pick up", pick_up),
    Action("sit down", sit_down),
    Action("stand up", stand_up),
    Action("jump", jump),
    Action("shake hands", handshake, handshake, 1.45),
    Action("push", push, pushed, 1.15),
    Action("hug", hug, hug, 1.75),
)
