"""Pictures on bodies: attention where it was kept, and augmentations as the training draws them."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import PathCollection, QuadMesh

from reports import figures
from reports.attention import attention_map, shown_classes
from reports.augmentations import ROWS, augmented
from reports.chosen import judged
from skeletons.augment import AugmentConfig
from skeletons.errors import BadInput
from skeletons.sources.demo import DemoSpec, generate
from skeletons.topology import KINECT_V1
from sweeps.records import Records, read_json
from tests.reports.pictures import records

CLASSES, PATCHES, JOINTS = 9, 5, len(KINECT_V1)


@pytest.fixture
def made(tmp_path, rng) -> tuple[dict, Records]:
    """(plan, records) with attention of `slim`; the last class has no clip."""
    found = records(tmp_path / "runs", 1, CLASSES)
    for seed in (0, 1):
        path = found.arrays_file(f"slim{seed}", "e")
        share = rng.dirichlet(np.ones(PATCHES * JOINTS), CLASSES).reshape(CLASSES, PATCHES, JOINTS) * 0.9
        share[-1] = np.nan
        body = KINECT_V1.ancestry.astype(float) @ rng.normal(0, 0.25, (CLASSES, PATCHES, JOINTS, 3))
        of = {"attention": share, "attention_joints": body}
        arrays = dict(np.load(path)) | {k: v.astype(np.float16) for k, v in of.items()}
        arrays |= {"attention_observed": np.ones((CLASSES, PATCHES, JOINTS), bool)}
        np.savez(path, **arrays, attention_clips=np.array([f"clip{c}" for c in range(CLASSES)]))
    return read_json(found.plan_file("plan")), found


def test_attention_is_drawn_as_it_was_kept(made, tmp_path):
    drawn = attention_map(*made, {"class": "class number 2,class number 0"})
    kept = judged(*made, "slim", "xsub", "embedding", {}, "map").arrays[0]["attention"].astype(float)
    order = [j for members in KINECT_V1.parts.values() for j in members]
    maps = [mesh for axes in drawn.axes for mesh in axes.collections if isinstance(mesh, QuadMesh)][:2]
    for mesh, number in zip(maps, (2, 0)):
        np.testing.assert_allclose(np.asarray(mesh.get_array()), kept[number].T[order] * PATCHES * JOINTS)
    bodies = [c for axes in drawn.axes for c in axes.collections if isinstance(c, PathCollection)]
    assert len(bodies) == 2 * PATCHES
    np.testing.assert_allclose(np.asarray(bodies[0].get_array()), kept[2, 0] * PATCHES * JOINTS)
    assert np.argmax(bodies[0].get_sizes()) == kept[2, 0].argmax(), "the larger, the more"
    assert "10 % goes to tokens before the patches" in drawn.get_suptitle()
    assert figures.main(["figure=attention", f"runs={made[1].root}", f"out={tmp_path / 'out'}"]) == 0
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".pdf", ".png"]


def test_classes_that_differ_most_are_shown_unless_some_are_named(made):
    found = judged(*made, "slim", "xsub", "embedding", {}, "map")
    shares = np.full((CLASSES, 2, 3), 1 / 6)
    shares[-1] = np.nan
    shares[1, 0, 0], shares[4, 1, 1] = 0.9, 0.8
    assert {1, 4} <= set(shown_classes(found, shares, {})) and CLASSES - 1 not in shown_classes(found, shares, {})
    with pytest.raises(BadInput, match="unknown class 'class number 10'; did you mean"):
        attention_map(*made, {"class": "class number 10"})
    with pytest.raises(BadInput, match="has no clip"):
        attention_map(*made, {"class": f"class number {CLASSES - 1}"})


def test_encoders_without_attention_are_named(made):
    with pytest.raises(BadInput, match="untrained: its encoder has no attention"):
        attention_map(*made, {"cell": "untrained"})


def bones(joints: np.ndarray) -> np.ndarray:
    child, parent = np.array(KINECT_V1.bones).T
    return np.linalg.norm(joints[..., child, :] - joints[..., parent, :], axis=-1)


def test_augmentations_are_drawn_one_at_a_time(rng):
    joints = (KINECT_V1.ancestry.astype(float) @ rng.normal(0, 0.2, (4, JOINTS, 3))).astype(np.float32)
    drawn = {row: augmented(joints, AugmentConfig(), KINECT_V1, *row, seed=0) for row in ROWS}
    mirror = list(KINECT_V1.mirror)
    np.testing.assert_allclose(drawn["mirroring", "limited"][0], joints[:, mirror], atol=1e-6)
    np.testing.assert_allclose(drawn["mirroring", "aware"][0], joints[:, mirror] * [-1, 1, 1], atol=1e-6)
    angle = {}
    for kind in ("aware", "limited"):
        turned = drawn["rotation", kind]
        np.testing.assert_allclose(
            bones(turned), np.broadcast_to(bones(joints), bones(turned).shape), rtol=1e-3, atol=1e-5
        )
        angle[kind] = np.abs(turned - joints).max((1, 2, 3))
    assert len(np.unique(angle["aware"].round(4))) == len(angle["aware"]), "draws differ"
    assert angle["aware"].max() > angle["limited"].max()
    ratio = bones(drawn["scaling", "aware"]) / bones(joints)
    assert 0.849 < ratio.min() < 0.95 and 1.05 < ratio.max() < 1.151
    assert np.abs(ratio - ratio[:, :1]).max() < 1e-3, "a bone is as long in all frames"
    torn = drawn["scaling", "limited"] / joints
    assert torn.min() > 0.849 and torn.max() < 1.151
    assert np.ptp(bones(drawn["scaling", "limited"]) / bones(joints), axis=1).max() > 0.01, "its bones are not"


def test_the_augmentations_are_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SKELBENCH_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "tiny.npz", **generate(DemoSpec(subjects=4, cameras=1, repetitions=1)))
    line = ["figure=augment", "data=archive", f"data.file={tmp_path / 'tiny.npz'}", "data.split=xsub"]
    assert figures.main([*line, f"out={tmp_path / 'out'}"]) == 0
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".pdf", ".png"]
    with pytest.raises(BadInput, match="unknown clip 'nobody'"):
        figures.main([*line, "clip=nobody"])
