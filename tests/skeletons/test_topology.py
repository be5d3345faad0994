"""Skeletons as trees of named joints."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest

from skeletons.errors import BadInput
from skeletons.topology import KINECT_V1, KINECT_V2, OPENNI, TOPOLOGIES, Topology, canonical, topology_of

ALL = pytest.mark.parametrize("tree", TOPOLOGIES.values(), ids=lambda t: t.name)


@pytest.mark.parametrize(("tree", "joints"), [(KINECT_V2, 25), (KINECT_V1, 20), (OPENNI, 15)], ids=lambda x: str(x)[:9])
def test_sensors_have_their_number_of_joints(tree, joints):
    assert len(tree) == len(tree.joints) == len(tree.parents) == joints
    assert len(tree.bones) == joints - 1


def test_slims_parts_on_kinect_v2():
    """SLiM, appendix C, counted from 0."""
    assert {part: set(members) for part, members in KINECT_V2.parts.items()} == {
        "torso": {0, 1, 20, 2, 3},
        "arm_left": {4, 5, 6, 7, 21, 22},
        "arm_right": {8, 9, 10, 11, 23, 24},
        "leg_left": {12, 13, 14, 15},
        "leg_right": {16, 17, 18, 19},
    }


def test_slims_parents_on_kinect_v2():
    """SLiM's released code, with its root naming itself."""
    released = [-1, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 7, 7, 11, 11]
    assert list(KINECT_V2.parents) == [max(p, 0) for p in released]


def test_slims_mirror_pairs_on_kinect_v2():
    """SLiM, appendix D, counted from 1."""
    pairs = [(5, 9), (6, 10), (7, 11), (8, 12), (13, 17), (14, 18), (15, 19), (16, 20), (22, 24), (23, 25)]
    expected = list(range(25))
    for a, b in pairs:
        expected[a - 1], expected[b - 1] = b - 1, a - 1
    assert list(KINECT_V2.mirror) == expected


@ALL
def test_parts_cover_each_joint_once_and_mirror_onto_each_other(tree):
    assert sorted(chain(*tree.parts.values())) == list(range(len(tree)))
    for part, members in tree.parts.items():
        other = {"left": "right", "right": "left"}.get(part.rpartition("_")[2])
        twin = part if other is None else f"{part.rpartition('_')[0]}_{other}"
        assert {tree.mirror[j] for j in members} == set(tree.parts[twin])


@ALL
def test_order_puts_parents_first_and_depths_and_ancestry_agree_with_it(tree):
    place = {j: i for i, j in enumerate(tree.order)}
    assert sorted(tree.order) == list(range(len(tree)))
    assert all(place[parent] < place[child] for child, parent in tree.bones)
    for j in range(len(tree)):
        path, k = [j], j
        while tree.parents[k] != k:
            path.append(k := tree.parents[k])
        assert path[-1] == tree.root
        assert tree.depths[j] == len(path) - 1
        assert set(np.flatnonzero(tree.ancestry[j])) == set(path)


@ALL
def test_degrees_count_the_bones_at_a_joint(tree):
    assert sum(tree.degrees) == 2 * (len(tree) - 1)
    assert tree.degrees[tree.joints.index("spine_shoulder")] == 4  # spine, head or neck, two shoulders
    assert tree.degrees[tree.joints.index("head")] == 1


@pytest.mark.parametrize(
    ("sensor", "anatomical"),
    [
        ("hip_center", "spine_base"),
        ("spine", "spine_mid"),
        ("torso", "spine_mid"),
        ("shoulder_center", "spine_shoulder"),
        ("elbow_left", "elbow_left"),
    ],
)
def test_names_are_matched_by_anatomy(sensor, anatomical):
    assert canonical(sensor) == anatomical


def test_a_file_in_a_sensors_own_names_gets_that_sensors_topology():
    old = {"spine_base": "hip_center", "spine_mid": "spine", "spine_shoulder": "shoulder_center"}
    assert topology_of([old.get(j, j) for j in KINECT_V1.joints], KINECT_V1.parents) is KINECT_V1
    openni = {"spine_mid": "torso", "spine_shoulder": "neck"}
    assert topology_of([openni.get(j, j) for j in OPENNI.joints], OPENNI.parents) is OPENNI
    assert topology_of(KINECT_V2.joints, np.array(KINECT_V2.parents)) is KINECT_V2


def test_an_unknown_body_gets_a_topology_of_its_own():
    tree = topology_of(["spine_base", "hip_left", "hip_right", "tail", "tail_tip"], [0, 0, 0, 0, 3])
    assert tree not in TOPOLOGIES.values()
    assert tree.parts == {"torso": (0, 3, 4), "leg_left": (1,), "leg_right": (2,)}
    assert tree.mirror == (0, 2, 1, 3, 4)


@pytest.mark.parametrize("part", ["torso", "arm_left", "leg_right"])
def test_connected_subsets_are_exactly_the_connected_ones(part):
    members = KINECT_V2.parts[part]

    def connected(subset: tuple[int, ...]) -> bool:
        # A forest with n joints and n - 1 bones among them is one tree.
        return sum(a in subset and b in subset for a, b in KINECT_V2.bones) == len(subset) - 1

    every = chain.from_iterable(combinations(sorted(members), n) for n in range(1, len(members) + 1))
    found = KINECT_V2.connected_subsets(members)
    assert set(found) == {subset for subset in every if connected(subset)}
    assert len(found) == len(set(found))
    assert [len(s) for s in found] == sorted(map(len, found))


def test_a_part_too_large_to_enumerate_is_refused():
    with pytest.raises(BadInput, match="15 joints is too large"):
        OPENNI.connected_subsets(range(15))


@pytest.mark.parametrize(
    ("joints", "parents", "message"),
    [
        (("a", "b"), (0,), "need 2 parents"),
        (("a", "a"), (0, 0), "distinct names"),
        (("a", "b"), (0, 1), "exactly one joint"),
        (("a", "b"), (1, 0), "exactly one joint"),
        (("a", "b"), (0, 7), "exactly one joint"),
        (("a", "b"), (0, -1), "exactly one joint"),
        (("a", "b", "c"), (0, 2, 1), "cycle"),
        ((), (), "exactly one joint"),
    ],
)
def test_what_is_no_tree_is_refused(joints, parents, message):
    with pytest.raises(BadInput, match=message):
        Topology(joints, parents)


def test_a_joint_without_its_partner_is_named():
    with pytest.raises(BadInput, match="'hand_left' has no partner 'hand_right'"):
        _ = Topology(("spine_base", "hand_left"), (0, 0)).mirror


def test_inner_joints_are_what_limbs_hang_on():
    assert KINECT_V2.inner == (0, 1, 4, 8, 12, 16, 20)  # HA-CM's seven
    names = ["shoulder_left", "shoulder_right", "hip_left", "hip_right", "spine_mid", "spine_shoulder"]
    assert {KINECT_V1.joints[j] for j in KINECT_V1.inner} == {*names, "spine_base"}
    assert {OPENNI.joints[j] for j in OPENNI.inner} == set(names)
    assert Topology(("spine_base", "neck", "head"), (0, 0, 1)).inner == ()  # no limbs
    short = Topology(("spine_base", "hand_left", "hand_right", "head"), (0, 0, 0, 0))
    assert short.inner == (0,)  # a leaf is never inner


def test_matching_is_the_identity_on_the_same_body():
    for tree in TOPOLOGIES.values():
        assert tree.matching(tree.joints) == list(range(len(tree)))


@pytest.mark.parametrize(
    ("body", "table"), [(KINECT_V1, KINECT_V2), (OPENNI, KINECT_V2), (OPENNI, KINECT_V1)], ids=lambda t: t.name
)
def test_a_smaller_body_finds_each_of_its_joints_by_name(body, table):
    assert [table.joints[i] for i in body.matching(table.joints)] == list(body.joints)


def test_joints_that_the_table_lacks_take_their_nearest_ancestor():
    taken = {j: KINECT_V1.joints[i] for j, i in zip(KINECT_V2.joints, KINECT_V2.matching(KINECT_V1.joints))}
    new = {"neck": "spine_shoulder", "hand_tip_left": "hand_left", "thumb_left": "hand_left"}
    new |= {"hand_tip_right": "hand_right", "thumb_right": "hand_right"}
    assert taken == {j: new.get(j, j) for j in KINECT_V2.joints}
    taken = {j: OPENNI.joints[i] for j, i in zip(KINECT_V2.joints, KINECT_V2.matching(OPENNI.joints))}
    assert (taken["wrist_left"], taken["hand_left"], taken["thumb_left"]) == ("elbow_left", "hand_left", "hand_left")
    assert (taken["ankle_right"], taken["foot_right"]) == ("knee_right", "foot_right")
    assert taken["spine_base"] == "spine_mid"  # the root has no ancestor: the first known joint


def test_a_body_that_shares_no_joint_is_refused():
    with pytest.raises(BadInput, match="shares no joint with fin, tail"):
        KINECT_V2.matching(["fin", "tail"])
