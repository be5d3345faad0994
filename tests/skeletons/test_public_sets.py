"""The four public sets open with their documented sizes and floors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skeletons.sampling import ClipTensors, ViewConfig, centre_view
from skeletons.sources import DataConfig, open_clips
from skeletons.splits import split

PUBLIC = {
    "irds": (2589, 9, 30, "kinect_v2", "subject:odd", None),
    "nwucla": (1484, 10, 10, "kinect_v1", "xview", (1020, 464)),
    "utdmhad": (861, 27, 8, "kinect_v1", "xsub", (431, 430)),
    "sbu": (282, 8, 21, "openni", "fold:0", None),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_sets_open_with_their_documented_sizes(shared_data, name):
    count, classes, subjects, topology, how, sizes = PUBLIC[name]
    clips = open_clips(DataConfig(name=name, root=str(shared_data)))
    assert (len(clips), len(clips.class_names), clips.topology.name) == (count, classes, topology)
    assert set(clips.labels) == set(range(classes))
    assert len(set(clips.table["subject"])) == subjects
    part = split(clips, how)
    assert len(part.train) + len(part.test) == count
    assert sizes in (None, (len(part.train), len(part.test)))
    assert clips.present[:, 0].all()
    assert all(a in clips.class_names and b in clips.class_names for a, b in clips.chiral)
    assert "license" in clips.notes
    with np.load(shared_data / f"{name}.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(clips.original(), file["joints"])


@pytest.mark.parametrize(
    ("name", "expected", "clean"), [("nwucla", 62.5, 52.8), ("utdmhad", 79.8, None), ("irds", 81.5, None)]
)
def test_nearest_neighbour_on_raw_coordinates_reaches_the_documented_floor(shared_data, name, expected, clean):
    """64 frames resampled linearly, centred on the first frame's root (shared/data/README.md)."""
    clips = open_clips(DataConfig(name=name, root=str(shared_data)))
    part = split(clips, PUBLIC[name][4])
    view = centre_view(ClipTensors(clips), torch.arange(len(clips)), ViewConfig(frames=64, test_crop=1.0))
    x = view.joints.flatten(1)
    nearest = torch.cdist(x[part.test], x[part.train]).argmin(1)
    labels = torch.from_numpy(clips.labels)
    right = (labels[part.train][nearest] == labels[part.test]).double()
    assert 100 * right.mean() == pytest.approx(expected, abs=0.1)
    if clean is not None:
        kept = ~torch.from_numpy(clips.table["test_identical_to_train"][part.test])
        assert kept.sum() == 369
        assert 100 * right[kept].mean() == pytest.approx(clean, abs=0.1)
