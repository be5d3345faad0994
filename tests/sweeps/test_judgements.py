"""What a result says of the clips it is about, and when it is another result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from methods.checkpoint import load_encoder, save_encoder
from skeletons.copies import copies
from skeletons.topology import KINECT_V2
from sweeps import execute
from sweeps.identity import data_of
from sweeps.plan import Work, make_plan
from sweeps.records import Records
from tests.sweeps.works import SMALL, make_encoder

JUDGED = ["protocol=retrieval", "protocol.pooling=mean"]


@pytest.fixture
def changed(archive, tiny, tmp_path):
    """A command line on the tiny data with some columns changed."""

    def line(**columns: np.ndarray) -> list[str]:
        file = tmp_path / f"changed{len(list(tmp_path.glob('changed*')))}.npz"
        np.savez(file, **{**np.load(archive, allow_pickle=False), **columns})
        return [f"data.file={file}" if o.startswith("data.file=") else o for o in tiny]

    return line


def works(line: list[str]) -> dict[str, Work]:
    return {work.cell: work for work in make_plan([*line, *JUDGED])[1]}


@pytest.mark.parametrize("column", ["train_xsub", "subject", "chiral", "class_names"])
def test_a_result_is_another_one_on_other_clips(archive, changed, column):
    """Encoders that were trained elsewhere, or not at all, do not know the split that they are judged on."""
    was = np.load(archive, allow_pickle=False)
    columns = {
        "train_xsub": ~was["train_xsub"],
        "subject": was["subject"][::-1].copy(),
        "chiral": was["class_names"][:2].reshape(1, 2),
        "class_names": np.append(was["class_names"], "nothing"),
    }
    before, after = works([*changed(), "method=mamp"]), works([*changed(**{column: columns[column]}), "method=mamp"])
    assert before["untrained"].pretraining == after["untrained"].pretraining
    for cell in ("raw", "untrained"):
        assert before[cell].results != after[cell].results


@pytest.mark.parametrize("said", ["threads=2", "data.split=xview", "data.stream=bone"])
def test_a_result_is_another_one_where_its_last_bits_are(tiny, said):
    before, after = works([*tiny, "method=mamp"]), works([*tiny, "method=mamp", said])
    for cell in ("raw", "untrained"):
        assert before[cell].results != after[cell].results


def test_what_only_pretraining_reads_changes_no_result_of_another_encoder(tiny):
    before, after = works([*tiny, "method=mamp"]), works([*tiny, "method=mamp", "views.crop_low=0.3", "train.lr=1"])
    assert before["mamp"].pretraining != after["mamp"].pretraining
    for cell in ("raw", "untrained"):
        assert before[cell].results == after[cell].results


def test_copies_are_found_in_whatever_split(archive, changed, tmp_path):
    was = np.load(archive, allow_pickle=False)
    offsets, length = was["offsets"], np.diff(was["offsets"])
    train, view = was["train_xsub"], was["train_xview"]
    pairs = ((a, b) for a in np.flatnonzero(train & view) for b in np.flatnonzero(~train & view))
    clip, twin = next((a, b) for a, b in pairs if length[a] == length[b])
    joints = was["joints"].copy()
    joints[offsets[twin] : offsets[twin + 1]] = joints[offsets[clip] : offsets[clip + 1]]
    line, records = changed(joints=joints), Records(tmp_path / "runs")
    for split, clean in (("xsub", (~train).sum() - 1), ("xview", None)):
        work = works([*line, f"data.split={split}", "method=mamp"])["raw"]
        execute.execute(work, records)
        assert records.result("raw", work.results[0]).get("clips_without_twins") == clean, split
    data, part = data_of(work.config)
    np.testing.assert_array_equal(copies(data, np.array([clip, twin, 0]), data, np.array([clip])), [True, True, False])
    assert copies(data, part.test, data, part.test).all()


def test_labelled_clips_are_not_mirrored_where_that_makes_another_class(archive, changed, tmp_path):
    names = np.load(archive, allow_pickle=False)["class_names"]
    plain, chiral = changed(), changed(chiral=names[:2].reshape(1, 2))
    for method, line, mirroring in (
        ("supervised", plain, "aware"),
        ("supervised", chiral, "none"),
        ("mamp", chiral, "aware"),
    ):
        config = make_plan([*line, f"method={method}", "setting=matched"])[1][-1].config
        data, part = data_of(config)
        assert execute.make_sampler(config, data, part.train, "cpu").augmentation.config.mirroring == mirroring
    work, records = works([*chiral, "method=mamp"])["raw"], Records(tmp_path / "runs")
    execute.execute(work, records)
    assert records.result("raw", work.results[0])["chiral"] == 1


def test_a_result_says_what_its_encoder_was_trained_on(tiny, archive, tmp_path):
    records = Records(tmp_path / "runs")

    def judged(line: list[str]) -> dict:
        work = make_plan([*tiny, *JUDGED, "ablation.floors=false", *line])[1][-1]
        execute.execute(work, records)
        found = records.result(work.pretraining, work.results[0])
        assert found is not None
        file.append(records.encoder(work.pretraining))
        return {key: found.get(key) for key in ("trained_on", "trained_split", "test_clips_seen")}

    file: list[Path] = []
    own = {"trained_on": "archive", "trained_split": "xsub", "test_clips_seen": None}
    assert judged(["method=mamp"]) == own
    trained = file[0]
    assert judged([f"encoder={trained}"]) == own
    was = np.load(archive, allow_pickle=False)
    seen = int((was["train_xsub"] & ~was["train_xview"]).sum())
    assert judged([f"encoder={trained}", "data.split=xview"]) == own | {"test_clips_seen": seen}
    assert judged([f"encoder={file[-1]}", "data.split=xview"]) == own | {"test_clips_seen": seen}, "adopted twice"
    stranger = tmp_path / "stranger.safetensors"
    save_encoder(stranger, make_encoder(SMALL, KINECT_V2, 16))
    unknown = {"trained_on": "unknown data", "trained_split": "", "test_clips_seen": None}
    assert judged([f"encoder={stranger}"]) == unknown
    assert load_encoder(stranger).frames == 16
