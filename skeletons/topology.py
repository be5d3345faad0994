"""Skeletons as trees of named joints. Everything anatomical is derived from names and parents, never from indices.

Joint names are Kinect v2's, in snake case with the side last (`elbow_left`). Other sensors' names are matched by
anatomy: Kinect v1's `hip_center` is Kinect v2's `spine_base`, `spine` (and OpenNI's `torso`) is `spine_mid`,
`shoulder_center` is `spine_shoulder`. OpenNI's `neck` lies between the shoulders at their height (checked by
position on SBU: within 1 cm of their middle, 20 cm below the head), so it is `spine_shoulder` too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import SupportsInt

import numpy as np

from skeletons.errors import BadInput

SYNONYMS = {
    "hip_center": "spine_base",
    "spine": "spine_mid",
    "torso": "spine_mid",
    "shoulder_center": "spine_shoulder",
}
_LIMB = {
    "arm": ("shoulder", "elbow", "wrist", "hand", "hand_tip", "thumb"),
    "leg": ("hip", "knee", "ankle", "foot"),
}


@dataclass(frozen=True)
class Topology:
    """A tree of joints.

    Attributes:
        joints: anatomical names, in the order of the data's joint axis.
        parents: index of each joint's parent; the root names itself.
        name: what to call it in messages.
    """

    joints: tuple[str, ...]
    parents: tuple[int, ...]
    name: str = "custom"

    def __post_init__(self) -> None:
        count = len(self.joints)
        if len(self.parents) != count or len(set(self.joints)) != count:
            raise BadInput(f"topology {self.name}: {count} joints need {count} parents and distinct names")
        if sum(p == j for j, p in enumerate(self.parents)) != 1 or not all(0 <= p < count for p in self.parents):
            raise BadInput(f"topology {self.name}: exactly one joint, the root, must be its own parent")
        if len(self._order()) != count:
            raise BadInput(f"topology {self.name}: the parents form a cycle")

    def __len__(self) -> int:
        return len(self.joints)

    def _order(self) -> list[int]:
        order = [self.root]
        for j in order:
            order += [c for c, p in enumerate(self.parents) if p == j and c != j]
            if len(order) > len(self.joints):
                break
        return order

    @property
    def root(self) -> int:
        """Index of the root joint."""
        return next(j for j, p in enumerate(self.parents) if j == p)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Joint indices, every parent before its children."""
        return tuple(self._order())

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) of every joint but the root."""
        return tuple((j, p) for j, p in enumerate(self.parents) if j != p)

    @cached_property
    def degrees(self) -> tuple[int, ...]:
        """Number of bones at each joint."""
        ends = [j for bone in self.bones for j in bone]
        return tuple(ends.count(j) for j in range(len(self)))

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Number of bones between each joint and the root."""
        depth = [0] * len(self)
        for j in self.order:
            depth[j] = 0 if j == self.root else depth[self.parents[j]] + 1
        return tuple(depth)

    @cached_property
    def ancestry(self) -> np.ndarray:
        """bool (joint, joint): True at (j, k) where k is j itself or one of its ancestors."""
        up = np.eye(len(self), dtype=bool)
        for j in self.order:
            if j != self.root:
                up[j] |= up[self.parents[j]]
        return up

    @cached_property
    def mirror(self) -> tuple[int, ...]:
        """Index of each joint's left-right partner; joints of the midline are their own."""
        where = {name: j for j, name in enumerate(self.joints)}
        partner = []
        for j, name in enumerate(self.joints):
            for side, other in (("_left", "_right"), ("_right", "_left")):
                if name.endswith(side):
                    twin = name.removesuffix(side) + other
                    if twin not in where:
                        raise BadInput(
                            f"topology {self.name}: joint {name!r} has no partner {twin!r}; "
                            "name it or set augment.mirroring=none"
                        )
                    partner.append(where[twin])
                    break
            else:
                partner.append(j)
        return tuple(partner)

    @cached_property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """Anatomical parts: torso, arm_left, arm_right, leg_left, leg_right (SLiM, appendix C). Joints whose names
        are no limb's belong to the torso unless they hang on a limb."""
        found: dict[str, list[int]] = {k: [] for k in ("torso", "arm_left", "arm_right", "leg_left", "leg_right")}
        part_of: dict[int, str] = {}
        for j in self.order:
            name, part = self.joints[j], None
            for limb, members in _LIMB.items():
                for side in ("left", "right"):
                    if name.endswith(f"_{side}") and name.removesuffix(f"_{side}") in members:
                        part = f"{limb}_{side}"
            if part is None:
                part = "torso" if j == self.root else part_of[self.parents[j]]
            part_of[j] = part
            found[part].append(j)
        return {part: tuple(sorted(members)) for part, members in found.items() if members}

    @cached_property
    def part_of(self) -> tuple[int, ...]:
        """Number of each joint's part, in the order of `parts`."""
        number = {j: n for n, members in enumerate(self.parts.values()) for j in members}
        return tuple(number[j] for j in range(len(self)))

    @cached_property
    def inner(self) -> tuple[int, ...]:
        """The inner joints that limbs hang on: the joint each arm and leg begins with and all its ancestors, leaves
        excepted (HA-CM's pruned "father" joints; Kinect v2: the three of the trunk, shoulders and hips)."""
        limbs = [members for part, members in self.parts.items() if part != "torso"]
        first = [j for members in limbs for j in members if self.parents[j] not in members]
        up = np.flatnonzero(self.ancestry[first].any(0)).tolist()
        return tuple(sorted({parent for _, parent in self.bones} & set(up)))

    def connected_subsets(self, members: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """All non-empty subsets of `members` that are connected in the bone graph restricted to them, smallest
        first. A part of the body has some dozens; more than 14 members are refused (the number doubles with each).
        """
        if len(members) > 14:
            raise BadInput(f"topology {self.name}: a part of {len(members)} joints is too large to enumerate")
        inside = set(members)
        near = {j: set() for j in members}  # type: dict[int, set[int]]
        for child, parent in self.bones:
            if child in inside and parent in inside:
                near[child].add(parent)
                near[parent].add(child)
        subsets = {frozenset([j]) for j in members}
        frontier = set(subsets)
        while frontier:
            grown = {s | {n} for s in frontier for j in s for n in near[j] if n not in s}
            frontier = grown - subsets
            subsets |= frontier
        return tuple(sorted((tuple(sorted(s)) for s in subsets), key=lambda s: (len(s), s)))

    def matching(self, names: Sequence[str]) -> list[int]:
        """For each joint of this topology, the index in `names` of the same joint, or of its nearest ancestor that
        is there (the root's is index of the first known joint): how an encoder's joint table serves another body.
        """
        where = {name: i for i, name in enumerate(names)}
        known = [where[self.joints[j]] for j in self.order if self.joints[j] in where]
        if not known:
            raise BadInput(f"topology {self.name} shares no joint with {', '.join(names)}")
        match: dict[int, int] = {}
        for j in self.order:
            above = known[0] if j == self.root else match[self.parents[j]]
            match[j] = where.get(self.joints[j], above)
        return [match[j] for j in range(len(self))]


def canonical(name: str) -> str:
    """The anatomical name that this project uses for a sensor's joint name."""
    return SYNONYMS.get(name, name)


def _tree(name: str, table: str) -> Topology:
    """Topology from lines `joint parent`, in the order of the data's joint axis."""
    pairs = [line.split() for line in table.strip().splitlines()]
    index = {joint: i for i, (joint, _) in enumerate(pairs)}
    return Topology(tuple(index), tuple(index[parent] for _, parent in pairs), name)


_LIMBS_V1 = """
shoulder_left spine_shoulder
elbow_left shoulder_left
wrist_left elbow_left
hand_left wrist_left
shoulder_right spine_shoulder
elbow_right shoulder_right
wrist_right elbow_right
hand_right wrist_right
hip_left spine_base
knee_left hip_left
ankle_left knee_left
foot_left ankle_left
hip_right spine_base
knee_right hip_right
ankle_right knee_right
foot_right ankle_right"""

# NTU RGB+D's joint order; thumb and hand tip hang on the hand (SLiM's parents, released code).
KINECT_V2 = _tree(
    "kinect_v2",
    f"""
spine_base spine_base
spine_mid spine_base
neck spine_shoulder
head neck{_LIMBS_V1}
spine_shoulder spine_mid
hand_tip_left hand_left
thumb_left hand_left
hand_tip_right hand_right
thumb_right hand_right""",
)
KINECT_V1 = _tree(
    "kinect_v1",
    f"""
spine_base spine_base
spine_mid spine_base
spine_shoulder spine_mid
head spine_shoulder{_LIMBS_V1}""",
)
# PrimeSense's 15 joints, SBU's order; the torso is the root.
OPENNI = _tree(
    "openni",
    """
head spine_shoulder
spine_shoulder spine_mid
spine_mid spine_mid
shoulder_left spine_shoulder
elbow_left shoulder_left
hand_left elbow_left
shoulder_right spine_shoulder
elbow_right shoulder_right
hand_right elbow_right
hip_left spine_mid
knee_left hip_left
foot_left knee_left
hip_right spine_mid
knee_right hip_right
foot_right knee_right""",
)
TOPOLOGIES = {t.name: t for t in (KINECT_V2, KINECT_V1, OPENNI)}


def topology_of(joint_names: Iterable[str], parents: Iterable[SupportsInt]) -> Topology:
    """The topology of a file: a known one where names and parents agree, else one of its own."""
    names = list(map(str, joint_names))
    openni = "torso" in names
    joints = tuple("spine_shoulder" if openni and n == "neck" else canonical(n) for n in names)
    tree = Topology(joints, tuple(int(p) for p in parents))
    for known in TOPOLOGIES.values():
        if (known.joints, known.parents) == (tree.joints, tree.parents):
            return known
    return tree
