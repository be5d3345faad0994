"""Crops, resampling and the multi-view plan, against slow and plain references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from skeletons import tensors
from skeletons.augment import Augmentation, AugmentConfig
from skeletons.clips import Clips, open_store, write_store
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch, ClipTensors, LocalView, Sampler, ViewConfig, centre_view, resample
from skeletons.topology import OPENNI

PLAIN = AugmentConfig(rotation="none", mirroring="none", scaling="none")
LENGTHS = (1, 3, 8, 9, 20, 64, 130, 300)
PRESENT = ((1, 0, 0), (1, 1, 0), (1, 0, 1), (1, 1, 1))


@pytest.fixture(scope="module")
def rulers(tmp_path_factory) -> Clips:
    """Three-person clips in which x is the frame's number and z the person's, once centred; presence varies."""
    frame = np.concatenate([np.arange(n) for n in LENGTHS])
    joints = np.zeros((len(frame), 3, 15, 3), dtype=np.float32)
    joints[..., 0], joints[..., 1], joints[..., 2] = frame[:, None, None], 1, 1 + np.arange(3)[None, :, None]
    clip_of = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    joints[np.array(PRESENT)[clip_of % len(PRESENT)] == 0] = 0
    arrays = {
        "joints": joints,
        "offsets": np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64),
        "label": np.arange(len(LENGTHS)) % 2,
        "clip": np.array([f"c{n}" for n in LENGTHS]),
        "class_names": np.array(["a", "b"]),
        "joint_names": np.array(OPENNI.joints),
        "parents": np.array(OPENNI.parents),
    }
    folder = tmp_path_factory.mktemp("rulers") / "store"
    write_store(folder, arrays, OPENNI, {"name": "rulers", "source": "generated"})
    return open_store(folder)


def sampler(clips: Clips, config: ViewConfig | None = None, augment: AugmentConfig = PLAIN, **options) -> Sampler:
    options = {"crops": 2, "local_views": True, **options}
    return Sampler(
        ClipTensors(clips),
        config or ViewConfig(),
        Augmentation(augment, clips.topology, chiral=bool(clips.chiral)),
        **options,
    )


def spans(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last source frame of each view of `rulers`, int64 (view, clip)."""
    x = batch.joints[:, 0, :, 0, 0].round().long().unflatten(0, (batch.views, -1))
    return x[..., 0], x[..., -1]


def by_clip(x: torch.Tensor, views: int) -> torch.Tensor:
    return x.unflatten(0, (views, -1)).transpose(0, 1)


# --- Resampling ---


def reference(clips: Clips, clip: int, begin: int, length: int, frames: int) -> np.ndarray:
    """float64 (person, frames, joint, 3), coordinate by coordinate."""
    start = clips.offsets[clip] + begin
    source = clips.frames[start : start + length].astype(np.float64) - clips.origin[clip]
    at = np.linspace(0, length - 1, frames)
    columns = source.reshape(length, -1).T
    out = np.stack([np.interp(at, np.arange(length), c) for c in columns], 1).reshape(frames, *source.shape[1:])
    return (out * clips.present[clip][:, None, None]).transpose(1, 0, 2, 3)


@pytest.mark.parametrize("frames", [2, 8, 32, 64, 200])
def test_resampling_agrees_with_numpy_clip_by_clip(clips, rng, frames):
    """Random crops of all clips, those of one frame too; longer and shorter than the result."""
    clip = np.concatenate([np.arange(len(clips))] * 6 + [np.arange(len(clips))])
    whole = clips.lengths[clip]
    length = 1 + (rng.random(len(clip)) * whole).astype(np.int64)
    length[-len(clips) :] = 1
    begin = (rng.random(len(clip)) * (whole - length + 1)).astype(np.int64)
    joints, _ = resample(ClipTensors(clips), *map(torch.from_numpy, (clip, begin, length)), frames)
    expected = np.stack([reference(clips, *row, frames) for row in zip(clip, begin, length)])
    np.testing.assert_allclose(joints.numpy(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("frames", [8, 16, 64, 128])
@pytest.mark.parametrize("length", [20, 64, 130])
def test_both_ends_of_a_crop_are_kept_exactly(clips, frames, length):
    clip = int(np.flatnonzero(clips.lengths == length)[0])
    store, row = ClipTensors(clips), torch.tensor([clip])
    joints, _ = resample(store, row, torch.tensor([3]), torch.tensor([length - 5]), frames)
    source = torch.from_numpy(clips.frames - clips.origin[clip])
    first, last = clips.offsets[clip] + 3, clips.offsets[clip] + length - 3
    assert torch.equal(joints[0, :1, [0, -1]], source[[first, last], :1].transpose(0, 1))


@pytest.mark.parametrize("length", [8, 64, 77, 130])
def test_a_crop_of_as_many_frames_as_asked_for_is_the_recording_itself(clips, rulers, length):
    """No rounding: a whole frame stays one, and its neighbours have no say in whether it was observed."""
    for data in (clips, rulers):
        for clip in np.flatnonzero(data.lengths == length):
            store, zero = ClipTensors(data), torch.tensor([0])
            joints, observed = resample(store, torch.tensor([clip]), zero, torch.tensor([length]), length)
            own = slice(data.offsets[clip], data.offsets[clip + 1])
            expected = (data.frames[own] - data.origin[clip]) * data.present[clip][:, None, None]
            assert torch.equal(joints[0], torch.from_numpy(expected).transpose(0, 1))
            np.testing.assert_array_equal(observed[0].numpy(), np.swapaxes(data.observed[own], 0, 1))


def test_a_crop_of_one_frame_is_repeated_and_one_result_frame_is_the_crops_first(rulers):
    store, clip = ClipTensors(rulers), torch.tensor([6, 6])
    joints, _ = resample(store, clip, torch.tensor([4, 100]), torch.tensor([1, 1]), 16)
    assert (joints[:, 0, :, 0, 0] == torch.tensor([[4.0], [100.0]])).all()
    joints, _ = resample(store, clip, torch.tensor([4, 100]), torch.tensor([9, 30]), 1)
    assert joints[:, 0, :, 0, 0].tolist() == [[4.0], [100.0]]


def test_observed_is_false_where_a_gap_is_long_and_true_where_it_is_short(clips):
    store, zero = ClipTensors(clips), torch.tensor([0])
    _, knee = resample(store, torch.tensor([8]), zero, torch.tensor([64]), 127)  # every half frame
    expected = torch.ones(127, dtype=torch.bool)
    expected[59:100] = False  # frames 30-49 were not seen: 29.5 to 49.5
    assert torch.equal(knee[0, 0, :, 13], expected)
    _, elbow = resample(store, torch.tensor([7]), zero, torch.tensor([40]), 64)
    assert elbow[0, 0].all()
    _, late = resample(store, torch.tensor([10]), zero, torch.tensor([90]), 90)
    assert late[0, 0].all(-1).tolist() == [False] * 10 + [True] * 80


def test_one_person_is_that_row_of_all_persons(clips):
    store, clip = ClipTensors(clips), torch.arange(len(clips))
    begin, length, person = torch.zeros_like(clip), store.length, clip % 2
    joints, observed = resample(store, clip, begin, length, 32)
    one, seen = resample(store, clip, begin, length, 32, person)
    assert torch.equal(one, joints[clip, person][:, None])
    assert torch.equal(seen, observed[clip, person][:, None])


def test_absent_persons_are_zero_in_every_view(clips):
    absent = torch.from_numpy(~clips.present)
    for batch in sampler(clips, augment=AugmentConfig(probability=1.0))(torch.arange(12), Draws(0, 0)).values():
        assert torch.equal(batch.present, ~absent.repeat(batch.views, 1))
        assert (batch.joints[~batch.present] == 0).all()
        assert not batch.observed[~batch.present].any()
        assert (batch.joints[batch.present] != 0).flatten(1).any(1).all()


@pytest.mark.parametrize("share", [0.95, 0.5, 1.0])
def test_the_evaluation_view_is_the_centre_of_the_clip(rulers, share):
    batch = centre_view(ClipTensors(rulers), torch.arange(len(rulers)), ViewConfig(test_crop=share), 32)
    first, last = spans(batch)
    cut = [int((1 - share) * n / 2) for n in LENGTHS]  # MAMP's feeder
    assert first[0].tolist() == cut
    assert last[0].tolist() == [n - 1 - c for n, c in zip(LENGTHS, cut)]
    assert batch.joints.shape == (8, 3, 32, 15, 3)
    np.testing.assert_array_equal(batch.labels, rulers.labels)
    assert batch.views == 1


def test_memory_mapped_and_in_memory_stores_are_identical(clips):
    loaded = replace(clips, frames=np.array(clips.frames), observed=np.array(clips.observed))
    a, b = (sampler(c, augment=AugmentConfig())(torch.arange(12), Draws(0, 0)) for c in (clips, loaded))
    assert a.keys() == b.keys()
    for group in a:
        assert torch.equal(a[group].joints, b[group].joints)
        assert torch.equal(a[group].observed, b[group].observed)


def test_a_store_of_some_clips_numbers_them_in_the_given_order(clips):
    some, whole = ClipTensors(clips, index=np.array([9, 2, 11])), ClipTensors(clips)
    config = ViewConfig(frames=16)
    a = centre_view(some, torch.arange(3), config)
    b = centre_view(whole, torch.tensor([9, 2, 11]), config)
    assert len(some) == 3
    for field in ("joints", "observed", "present", "labels"):
        assert torch.equal(getattr(a, field), getattr(b, field))


# --- The plan ---


def test_clips_taken_from_a_store_are_those_of_a_store_of_them_alone(clips):
    rows, config = np.array([9, 2, 11, 4]), ViewConfig(frames=16)
    whole = ClipTensors(clips)
    taken, alone = whole.take(torch.from_numpy(rows)), ClipTensors(clips, index=rows)
    assert len(taken) == 4 and len(whole) == len(clips) and taken.frames is whole.frames
    views = [centre_view(store, torch.arange(4), config) for store in (taken, alone)]
    for name in ("joints", "observed", "present", "labels"):
        assert torch.equal(*(getattr(view, name) for view in views))


def test_view_groups_have_slims_names_sizes_and_order(rulers):
    batch = sampler(rulers)(torch.tensor([5, 6, 7]), Draws(0, 0))
    assert {name: (b.views, b.joints.shape[2]) for name, b in batch.items()} == {
        "global": (2, 64),
        "local32": (4, 32),
        "local16": (4, 16),
        "local8": (4, 8),
    }
    for b in batch.values():  # all clips of the first view first: presence tells clips 5, 6 and 7 apart
        assert len(b) == 3 * b.views
        assert b.present.tolist() == [[bool(p) for p in PRESENT[i % 4]] for i in (5, 6, 7)] * b.views
        assert b.labels is None


def test_one_view_is_called_clip(rulers):
    batch = sampler(rulers, crops=1, local_views=False, labels=True)(torch.tensor([5, 6, 2]), Draws(0, 0))
    assert list(batch) == ["clip"]
    assert batch["clip"].views == 1
    assert batch["clip"].labels.tolist() == [1, 0, 0]


def test_each_view_is_a_batch_of_its_own(rulers):
    clips = torch.tensor([5, 6, 2])
    for labels in (True, False):
        batch = sampler(rulers, crops=3, local_views=False, labels=labels)(clips, Draws(0, 0))["clip"]
        for number, view in enumerate(batch.each_view()):
            rows = slice(3 * number, 3 * number + 3)
            assert (len(view), view.views) == (3, 1)
            for name in ("joints", "observed", "present"):
                assert torch.equal(getattr(view, name), getattr(batch, name)[rows])
            assert view.labels.tolist() == [1, 0, 0] if labels else view.labels is None


def test_labels_are_handed_on_row_by_row_where_asked_for(rulers):
    batch = sampler(rulers, labels=True)(torch.tensor([5, 6, 2]), Draws(0, 0))
    assert batch["local8"].labels.tolist() == [1, 0, 0] * 4


def test_two_local_views_of_the_same_length_keep_apart(rulers):
    config = ViewConfig(locals=[LocalView(8, 1, 0.5, 0.7), LocalView(8, 3, 0.1, 0.2)])
    batch = sampler(rulers, config)(torch.tensor([7]), Draws(0, 0))
    assert {name: b.views for name, b in batch.items()} == {"global": 2, "local8": 2, "local8-1": 6}


def test_globals_cover_between_half_and_all_of_a_clip(rulers):
    clip = torch.arange(len(rulers)).repeat_interleave(100)
    first, last = spans(sampler(rulers)(clip, Draws(0, 0))["global"])
    length = torch.tensor(LENGTHS)[clip]
    size = last - first + 1
    assert (first >= 0).all()
    assert (last < length).all()
    assert (size >= torch.maximum(length // 2, length.clamp(max=8))).all()  # at least 8 frames or the whole clip
    assert (size <= length).all()
    long = clip == 7
    assert size[:, long].min() < 165  # the range is used: 150-300 of 300 frames, anywhere
    assert size[:, long].max() > 285
    assert first[:, long].min() < 5
    assert last[:, long].max() > 294
    assert (first[0] != first[1]).any()


@pytest.mark.parametrize("local", ViewConfig().locals, ids=lambda v: f"local{v.frames}")
def test_locals_lie_inside_their_own_anchor(rulers, local):
    clip = torch.arange(len(rulers)).repeat_interleave(50)
    batch = sampler(rulers)(clip, Draws(0, 0))
    begin, end = (t.repeat_interleave(local.crops, 0) for t in spans(batch["global"]))  # of the view's anchor
    first, last = spans(batch[f"local{local.frames}"])
    assert (first >= begin).all()
    assert (last <= end).all()
    anchor, size = end - begin + 1, last - first + 1
    least = anchor.clamp(max=8)
    assert (size >= torch.maximum((anchor * local.low).floor(), least)).all()
    assert (size <= torch.maximum(anchor * local.high, least)).all()
    other = begin.roll(local.crops, 0)  # the other global's interval: some must lie outside it
    assert (first < other).any()
    views = first.unflatten(0, (2, local.crops))
    assert (views[:, 0] != views[:, 1]).any()  # crops of one anchor are drawn apart


def test_one_person_is_present_the_same_in_all_views_and_each_equally_often(rulers):
    clip = torch.arange(4, 8).repeat_interleave(400)
    batch = sampler(rulers, one_person=True)(clip, Draws(0, 0))
    for b in batch.values():
        assert b.joints.shape[1] == 1
        assert b.present.all()
    person = by_clip(batch["global"].joints[:, 0, 0, 0, 2], 2).round().long()[:, 0]
    for b in batch.values():
        assert (by_clip(b.joints[:, 0, :, :, 2], b.views).round().long() == person[:, None, None, None]).all()
    for i in range(4, 8):
        present = np.flatnonzero(PRESENT[i % 4])
        often = torch.bincount(person[clip == i], minlength=3).numpy() / 400
        np.testing.assert_allclose(often[present], 1 / len(present), atol=0.1)
        assert often.sum() == often[present].sum()


def test_a_batch_depends_on_seed_and_step_alone(clips):
    def draw(seed: int, step: int) -> dict[str, Batch]:
        return sampler(clips, augment=AugmentConfig(), one_person=True)(torch.arange(12), Draws(seed, step))

    first = draw(0, 5)
    for group, batch in draw(0, 5).items():
        assert torch.equal(batch.joints, first[group].joints)
        assert torch.equal(batch.observed, first[group].observed)
        assert torch.equal(batch.present, first[group].present)
    for other in (draw(0, 6), draw(1, 5)):
        for group, batch in other.items():
            assert not torch.equal(batch.joints, first[group].joints)


@pytest.mark.parametrize("mirror_per", ["view", "clip"])
@pytest.mark.parametrize("one_person", [True, False])
def test_ranks_draw_what_one_rank_with_the_whole_batch_draws(clips, mirror_per, one_person):
    draw = sampler(clips, augment=AugmentConfig(mirror_per=mirror_per), one_person=one_person)
    clip = torch.tensor([11, 3, 8, 10, 5, 2])
    whole = draw(clip, Draws(0, 5))
    parts = [draw(clip[3 * r : 3 * r + 3], Draws(0, 5, rank=r, world=2)) for r in range(2)]
    for group, batch in whole.items():
        for field in ("joints", "observed", "present"):
            halves = torch.cat([by_clip(getattr(p[group], field), batch.views) for p in parts])
            torch.testing.assert_close(halves, by_clip(getattr(batch, field), batch.views), rtol=0, atol=1e-6)


def test_folding_makes_a_row_of_each_person_slot(rulers):
    batch = sampler(rulers, crops=1, local_views=False, labels=True)(torch.tensor([5, 6]), Draws(0, 0))["clip"]
    folded = batch.fold()
    assert folded.joints.shape == (6, 1, 64, 15, 3)
    assert folded.present[:, 0].tolist() == [True, True, False, True, False, True]
    assert folded.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert torch.equal(folded.joints[5, 0], batch.joints[1, 2])
    assert torch.equal(folded.observed[4, 0], batch.observed[1, 1])


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.7, 0.5), (0.5, 1.1), (-0.1, 0.5)])
def test_a_crop_range_that_is_none_is_refused(rulers, low, high):
    with pytest.raises(BadInput, match="need 0 < low <= high <= 1"):
        sampler(rulers, ViewConfig(crop_low=low, crop_high=high))


def test_shape_annotations_are_checked_under_pytest():
    with pytest.raises(TypeCheckError):
        Batch(torch.zeros(2, 1, 8, 25, 3), torch.ones(2, 1, 9, 25, dtype=torch.bool), torch.ones(2, 1).bool())


@pytest.mark.parametrize("one_person", [True, False])
def test_what_stays_on_disk_gives_the_same_bits(clips, one_person):
    index = np.array([11, 0, 8, 9, 10, 2])
    memory, disk = (ClipTensors(clips, index=index, mapped=mapped) for mapped in (False, True))
    assert disk.mapped and not memory.mapped and isinstance(clips.frames, np.memmap)
    before = np.array(clips.frames)
    rows, draws = torch.arange(6), Draws(0, "mapped")
    augmentation = Augmentation(AugmentConfig(), clips.topology)
    for store in (disk, disk.take(torch.tensor([3, 4, 5]))):
        here = rows[: len(store)]
        other = memory if len(store) == 6 else memory.take(torch.tensor([3, 4, 5]))
        views = [
            Sampler(s, ViewConfig(frames=16), augmentation, 2, True, one_person)(here, draws) for s in (store, other)
        ]
        views = [[*v.values(), centre_view(s, here, ViewConfig(frames=16))] for v, s in zip(views, (store, other))]
        for one, same in zip(*views):
            assert torch.equal(one.joints, same.joints) and torch.equal(one.observed, same.observed)
    assert np.array_equal(before, clips.frames)


def test_frames_stay_on_disk_where_memory_is_too_small(clips, monkeypatch):
    need = clips.frames.nbytes + clips.observed.nbytes
    for free, mapped in ((2 * need, False), (2 * need - 2, True)):
        monkeypatch.setattr(tensors, "free_memory", lambda free=free: free)
        assert ClipTensors(clips).mapped == mapped


def test_local_crops_of_a_single_length_are_as_many() -> None:
    """SLiM, Table 5's CL: the same number of local views, all of 16 frames over the 16-frame view's share."""
    diverse, single = ViewConfig(), ViewConfig(single_length=16)
    (only,) = single.local_views()
    assert (only.frames, only.crops, only.low, only.high) == (16, sum(v.crops for v in diverse.locals), 0.15, 0.4)
    assert diverse.local_views() == diverse.locals
    with pytest.raises(BadInput, match=r"views\.single_length=12 must be the frames of a local view: 32, 16, 8"):
        ViewConfig(single_length=12).local_views()
