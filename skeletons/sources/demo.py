"""The embedded data set `demo`: articulated people, simulated, as a Kinect v2 would record them.

Thirty-two subjects of their own proportions, tempo, handedness and style perform twelve actions before three cameras:
1,152 clips of 32 to 128 frames. An action is joint angles over time (demo_actions.py), which forward kinematics turns
into bodies (demo_body.py). What hides it is what hides it in recordings: where the cameras and the person look, when in
the clip it happens, how idle arms are held, who else stands there, and the sensor's errors.

The set is frozen: a test holds its fingerprint. It was calibrated on these floors (top-1 in %, cross-subject, gaps
filled, centred on the first person's root in the first frame): raw 1-NN 68.4, raw linear probe 60.6; the untrained
encoder of scale=demo, patch tokens pooled, 47.9 and 53.1 (as it started then; now 47.2 and 47.6); the same encoder
trained with labels on 60,000 clips seen, 93.2 and 92.2 (`method=supervised train.length="60000 clips" train.batch=64`).
It was changed once after a method had run on it and failed by its test split: with 16 subjects who acted twice, 8 of
them for training, SLiM's probe was not above the untrained encoder's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sources.demo_actions import ACTIONS, ARM, LEG, SIDES, TRUNK, Role, Stage, idle
from skeletons.sources.demo_body import BODY, Cast, cast, forward_kinematics, plant, rotation

VERSION = 3  # of the generated data: raise it with whatever moves a coordinate
FPS = 30.0
# Idle postures of an arm (raise, out, roll, elbow): hanging, hand on the hip, forearm held forward.
POSTURES = np.array([[9.0, 75, 72, 16], [42, 80, 95, 88], [20, 30, 55, 85]])


@dataclass(frozen=True)
class DemoSpec:
    """What the demo set is a function of.

    Attributes:
        subjects: number of persons; of every eight, the third and the fourth are left-handed.
        cameras: number of sensors, spread over 90 degrees around the scene, all seeing the same performance.
        repetitions: performances of each class by each subject.
        seed: of every draw.
        noise: scale of the sensor's errors; 0 is a perfect sensor that drops no joint.
    """

    subjects: int = 32
    cameras: int = 3
    repetitions: int = 1
    seed: int = 0
    noise: float = 1.0

    def __post_init__(self) -> None:
        for name in ("subjects", "cameras", "repetitions"):
            if not 1 <= getattr(self, name) <= 999:
                raise BadInput(f"demo: {name} must be between 1 and 999, not {getattr(self, name)}")


def act(
    people: Cast,
    who: np.ndarray,
    roles: list[Role],
    length: np.ndarray,
    stage: Stage,
    rng: np.random.Generator,
) -> np.ndarray:
    """Performances of one person each, right-handed, starting at the origin and facing +z.

    Args:
        who: (performances,) index of the subject.
        roles: the curves of each performance.
        length: (performances,) frames of each.
        stage: of all frames of all performances, end to end.

    Returns:
        (frames, joints, 3) metres, y = 0 is the floor.
    """
    n, of = len(who), np.repeat(np.arange(len(who)), length)
    second = _frame(length) / FPS
    person = who[of]

    def sway(size: float, low: float = 0.1, high: float = 0.6) -> np.ndarray:
        hz, phase = rng.uniform(low, high, n), rng.uniform(0, 2 * np.pi, n)
        return size * people.restless[person] * np.sin(2 * np.pi * hz[of] * second + phase[of])

    doing: dict[str, np.ndarray] = {}
    for role in dict.fromkeys(roles):
        at = np.array([r is role for r in roles])[of]
        for name, angle in role(Stage(stage.progress[at], stage.cycles[at], stage.way[at])).items():
            doing.setdefault(name, np.zeros(len(of)))[at] = angle

    amount = (people.amplitude[who] * rng.uniform(0.92, 1.08, n))[of]
    nothing = np.zeros(len(of))
    angles = {name: amount * doing.get(name, nothing) for name in TRUNK}
    angles["bend"] += people.stoop[person] + sway(2.0)
    angles["lean"] += sway(1.0)
    angles["side"] += sway(2.5)
    angles["twist"] += sway(4.0)
    angles["nod"] += sway(7.0) - 0.5 * people.stoop[person]
    for side in SIDES:
        # The idle hand rests somewhere; the right one hangs more often, it is the one that acts.
        rest = POSTURES[rng.choice(3, n, p=(0.6, 0.2, 0.2) if side == "left" else (0.84, 0.06, 0.1))]
        busy = doing.get(f"busy_{side}", nothing)
        for k, name in enumerate(ARM):
            free = rest[of, k] + people.arms[person, k] + sway(4.0, 0.2, 0.9)
            taken = amount * doing.get(f"{name}_{side}", nothing)
            angles[f"{name}_{side}"] = busy * taken + (1 - busy) * free
        angles[f"hang_{side}"] = (1 - busy) * (angles["lean"] + angles["bend"])
        angles[f"elbow_{side}"] = np.clip(angles[f"elbow_{side}"], 2, 150)  # an elbow bends one way
        for name in LEG:
            angles[f"{name}_{side}"] = amount * doing.get(f"{name}_{side}", nothing)
        angles[f"spread_{side}"] += people.stance[person]
    return plant(forward_kinematics(angles, people.bones[person]), angles["flight"], length)


@dataclass(frozen=True)
class Plan:
    """The performances, each a row, and the stage of all their frames end to end; subjects from 0."""

    subject: np.ndarray
    repetition: np.ndarray
    label: np.ndarray
    length: np.ndarray
    stage: Stage

    @property
    def of(self) -> np.ndarray:
        """(frames,) the performance of each frame."""
        return np.repeat(np.arange(len(self.length)), self.length)


def plan(spec: DemoSpec, people: Cast) -> Plan:
    """Every subject performs every class `repetitions` times: a while idle, the action, a while idle."""
    rng = Draws("demo", spec.seed, "plan").numpy()
    grid = product(range(spec.subjects), range(spec.repetitions), range(len(ACTIONS)))
    subject, repetition, label = np.array(list(grid)).T
    n = len(label)
    lead, tail = np.round(FPS * rng.uniform(0, 1.3, (2, n))).astype(int)
    lasting = np.round(FPS * rng.uniform(0.85, 1.8, n) / people.tempo[subject]).astype(int)
    length = lead + lasting + tail
    of = np.repeat(np.arange(n), length)
    x = np.clip((_frame(length) - lead[of]) / lasting[of], 0, 1)
    # Some hurry at the start, some at the end; a factor below 1 keeps time from running backwards.
    x += rng.uniform(-0.6, 0.6, n)[of] * np.sin(2 * np.pi * x) / (2 * np.pi)
    stage = Stage(x, cycles=rng.uniform(2, 4.2, n)[of], way=rng.random(n)[of])
    return Plan(subject, repetition, label, length, stage)


def perform(spec: DemoSpec, people: Cast, takes: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Play the plan in a room whose origin is the middle of the action; the middle camera looks along +z.

    Returns:
        joints (frames, 2, joints, 3) in metres, y up, and bool (frames, 2), who is there.
    """
    rng = Draws("demo", spec.seed, "scene").numpy()
    subject, label, of, n = takes.subject, takes.label, takes.of, len(takes.label)
    pair = np.array([action.partner is not None for action in ACTIONS])[label]
    # A second body is no label: a bystander is now and then with the one-person classes.
    two = pair | (rng.random(n) < 0.15)
    # Whoever is second is of the same half of the cross-subject split.
    half = max(1, spec.subjects // 2)
    other = (subject + 2 * rng.integers(1, max(2, half), n)) % min(2 * half, spec.subjects)
    first = act(people, subject, [ACTIONS[k].actor for k in label], takes.length, takes.stage, rng)
    seen = two[of]
    second = act(
        people, other[two], [ACTIONS[k].partner or idle for k in label[two]], takes.length[two],
        Stage(takes.stage.progress[seen], takes.stage.cycles[seen], takes.stage.way[seen]), rng,
    )  # fmt: skip

    gap = np.array([a.gap for a in ACTIONS])[label] * people.reach[[subject, other]].mean(0)
    gap += rng.uniform(-0.03, 0.03, n)
    beside = rng.choice((-1, 1), n) * rng.uniform(0.8, 1.3, n), np.zeros(n), rng.uniform(-0.6, 0.6, n)
    away = np.where(pair[:, None], gap[:, None] * (0, 0, 1), np.stack(beside, -1))
    turned = np.where(pair, 180, rng.uniform(-60, 60, n))
    scene = np.zeros((len(of), 2, *first.shape[1:]))
    scene[:, 0] = first
    scene[seen, 1] = _about_y(second, turned[of[seen]]) + away[of[seen], None]
    scene -= (pair[:, None] * away / 2)[of][:, None, None]
    flip = people.left_handed[subject][of]
    scene[flip] = scene[flip][:, :, list(BODY.mirror)] * (-1, 1, 1)
    there = np.stack([np.ones_like(seen), seen], 1)
    swap = (pair & (rng.random(n) < 0.5))[of]  # a sensor numbers two persons as it pleases
    scene[swap] = scene[swap][:, ::-1]

    # One person more or less faces the middle camera, a pair is seen from the side.
    facing = rng.uniform(-110, 110, n) + pair * rng.choice((-90, 90), n)
    spot = rng.uniform(-0.3, 0.3, (n, 3)) * (1, 0, 1)
    return _about_y(scene, (180 + facing)[of]) + spot[of][:, None, None], there


def film(spec: DemoSpec, scene: np.ndarray, subject: np.ndarray) -> Iterator[np.ndarray]:
    """What each camera sees: yields (frames, persons, joints, 3) in its frame (x left, y up, z ahead).

    Args:
        scene: (frames, persons, joints, 3) in the room's frame.
        subject: (frames,), for whom the cameras were set up anew.
    """
    rng = Draws("demo", spec.seed, "cameras").numpy()
    shape, zero = (spec.cameras, spec.subjects), np.zeros(len(subject))
    yaw = np.linspace(-45, 45, spec.cameras)[:, None] + rng.uniform(-6, 6, shape)
    distance, height = rng.uniform(2.4, 3.6, shape), rng.uniform(0.6, 1.8, shape)
    tilt = rng.uniform(-6, 12, shape)  # looking down
    for camera in range(spec.cameras):
        at = camera, subject
        level = _about_y(scene, yaw[at])
        level += np.stack([zero, -height[at], distance[at]], -1)[:, None, None].astype(scene.dtype)
        yield _rotate(level, rotation(0, -tilt[at]))


def sense(spec: DemoSpec, joints: np.ndarray, there: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The sensor's errors: joints seen beside where they are, tremor, jumps of limbs, limbs lost (zeros).

    Args:
        joints: (frames, persons, joints, 3), all clips end to end, `length` (clips,) frames each.
        there: bool (frames, persons); an absent person becomes zeros.
    """
    sensed = joints * there[..., None, None]
    if spec.noise == 0:
        return sensed
    rng = Draws("demo", spec.seed, "sensor").numpy()
    clips, at, of = len(length), _frame(length), np.repeat(np.arange(len(length)), length)
    loose = 1 + 0.35 * np.maximum(np.array(BODY.depths) - 2, 0)  # further out in the limbs, worse
    odds = loose**2 * (np.array(BODY.depths) > 1)  # the base of the trunk is never lost
    size = np.float32(spec.noise) * loose[:, None].astype(np.float32)
    beside = 0.01 * rng.standard_normal((clips, *joints.shape[1:]), dtype=np.float32)
    white = rng.standard_normal(joints.shape, dtype=np.float32)
    tremor = 0.005 * white  # and three frames' memory
    for k in (1, 2, 3):
        tremor[k:] += 0.002 * white[:-k]
    sensed += (beside[of] + tremor) * size
    for lost in (False, False, True, True, True):  # two jumps, three losses a clip, if they hit a person
        person = rng.integers(0, joints.shape[1], clips)
        joint = rng.choice(len(BODY), clips, p=odds / odds.sum())
        limb = BODY.ancestry[:, joint].T  # the joint and what hangs on it
        start, lasts = rng.random(clips) * length, rng.integers(2, 12 if lost else 5, clips)
        jump = rng.normal(0, 0.08 * spec.noise, (clips, 1, 3)).astype(np.float32)
        now = np.flatnonzero((at >= start[of]) & (at < (start + lasts)[of]))
        who, hit = person[of[now]], limb[of[now], :, None]
        sensed[now, who] = np.where(hit, 0 if lost else sensed[now, who] + jump[of[now]], sensed[now, who])
    return sensed * there[..., None, None]


def generate(spec: DemoSpec = DemoSpec()) -> dict[str, np.ndarray]:
    """The data set in the exchange schema.

    Returns:
        joints float32 (frames, 2, 25, 3), all clips end to end, metres, y up, rounded to 1/4096 m, exact
        zeros where a joint is lost or a person absent; offsets int64 (clips + 1); label (from 0), subject,
        camera, repetition (from 1) int64 (clips); clip str (clips), named as in NTU RGB+D, S being the set-up
        of the cameras; train_xsub, train_xview bool (clips); class_names, joint_names, parents; the scalars
        fps, units, license, source, sensor, split_note.
    """
    people = cast(spec.subjects, spec.seed)
    takes = plan(spec, people)
    scene, there = perform(spec, people, takes)
    views = np.concatenate(list(film(spec, scene.astype(np.float32), takes.subject[takes.of])))
    label, subject, repetition, length = (
        np.tile(column, spec.cameras) for column in (takes.label, takes.subject + 1, takes.repetition + 1, takes.length)
    )
    camera = np.repeat(np.arange(spec.cameras) + 1, len(takes.label))
    joints = sense(spec, views, np.tile(there, (spec.cameras, 1)), length)
    rows = zip(subject, camera, subject, repetition, label + 1, strict=True)
    return {
        "joints": (np.round(joints * 4096) / 4096).astype(np.float32),
        "offsets": np.concatenate([[0], np.cumsum(length)]).astype(np.int64),
        "label": label.astype(np.int64),
        "subject": subject.astype(np.int64),
        "camera": camera.astype(np.int64),
        "repetition": repetition.astype(np.int64),
        "clip": np.array(["S{:03d}C{:03d}P{:03d}R{:03d}A{:03d}".format(*row) for row in rows]),
        "class_names": np.array([action.name for action in ACTIONS]),
        "joint_names": np.array(BODY.joints),
        "parents": np.array(BODY.parents, dtype=np.int64),
        "train_xsub": subject % 2 == 1,
        "train_xview": camera != 1,
        "fps": np.array(FPS),
        "units": np.array("m"),
        "license": np.array("MIT"),
        "source": np.array(f"simulated by skeletons/sources/demo.py: {spec}"),
        "sensor": np.array("Kinect v2 (simulated)"),
        "split_note": np.array("train_xsub: odd subjects train, even test; train_xview: cameras 2, 3 train, 1 tests"),
    }


def _frame(length: np.ndarray) -> np.ndarray:
    """(frames,) number of each frame within its clip."""
    return np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)


def _about_y(points: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Turn (frames, ..., 3) by (frames,) degrees about the vertical."""
    return _rotate(points, rotation(1, degrees))


def _rotate(points: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Turn (frames, ..., 3) by (frames, 3, 3)."""
    flat = points.reshape(len(points), -1, 3)
    return (flat @ by.swapaxes(1, 2).astype(points.dtype)).reshape(points.shape)
