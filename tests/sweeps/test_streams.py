"""Encoders of streams and their fusion, end to end, at a size of seconds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from methods.checkpoint import told_with
from protocols.fusion import JUDGED
from skeletons.errors import BadInput
from sweeps import execute, run
from sweeps.plan import make_plan
from sweeps.records import Records


def test_an_encoder_from_a_file_is_judged_on_the_stream_it_was_trained_on(tiny, tmp_path):
    line, records = [*tiny, "protocol=retrieval", "protocol.pooling=mean"], Records(tmp_path / "runs")
    _, untrained, trained = make_plan([*line, "method=mamp", "data.stream=bone"])[1]
    for work in (untrained, trained):
        execute.execute(work, records)
    path = records.encoder(trained.pretraining)
    assert told_with(path)["stream"] == "bone" and told_with(path)["method"] == "mamp"
    assert "stream" not in told_with(records.encoder(untrained.pretraining))
    before = records.result(trained.pretraining, trained.results[0])
    assert before["stream"] == records.about(trained.pretraining)["stream"] == "bone"

    given = [*line, f"encoder={path}"]
    works = make_plan(given)[1]
    assert {w.config.data.stream for w in works} == {"bone"}, "the floors too"
    execute.execute(works[-1], records)
    assert told_with(records.encoder(works[-1].pretraining))["stream"] == "bone"
    after = records.result(works[-1].pretraining, works[-1].results[0])
    assert (after["top1"], after["stream"]) == (before["top1"], "bone")
    assert make_plan([*given, "data.stream=bone"])[1][-1].results == works[-1].results
    with pytest.raises(BadInput, match="trained on the bone stream"):
        make_plan([*given, "data.stream=joint"])
    with pytest.raises(BadInput, match="trains an encoder on each stream"):
        make_plan([*given, "protocol=fusion"])


FUSION = ["method=mamp", "protocol=fusion"]


def rows_of(printed: str) -> dict[str, str]:
    """First number of each row of the printed table."""
    body = printed[printed.rindex("cell ") : printed.rindex("measured:")].splitlines()
    rows = [line.split("±")[0].split() for line in body[1:] if line.strip("-")]
    return {" ".join(words[:-1]): words[-1] for words in rows}


def test_fusion_is_one_work_for_each_stream_and_one_that_needs_them(tiny):
    works = make_plan([*tiny, *FUSION])[1]
    names = [f"{cell} {kind}" for cell in ("untrained", "mamp") for kind in ("joint", "bone", "motion", "fused")]
    assert [w.cell for w in works] == ["raw joint", "raw bone", "raw motion", *names]
    mamp = {w.cell: w for w in works}
    fused = mamp["mamp fused"]
    assert [n.cell for n in fused.needs] == ["mamp joint", "mamp bone", "mamp motion"]
    assert [n.key for n in fused.needs] == [w.key for w in works[-4:-1]]
    assert [n.config.data.stream for n in fused.needs] == ["joint", "bone", "motion"]
    assert len({w.pretraining for w in works[-4:]}) == 4
    assert list(fused.judgements) == list(mamp["mamp joint"].judgements) == [JUDGED]
    for stream in ("joint", "bone", "motion"):  # the same works as without fusion
        alone = make_plan([*tiny, "method=mamp", f"protocol={JUDGED}", f"data.stream={stream}"])[1][-1]
        assert (alone.pretraining, alone.results) == (
            mamp[f"mamp {stream}"].pretraining,
            mamp[f"mamp {stream}"].results,
        )


def test_the_identity_of_a_fusion_is_that_of_its_parts_and_its_weights(tiny):
    def fused(*more: str) -> tuple[str, list[str]]:
        work = make_plan([*tiny, *FUSION, *more])[1][-1]
        return work.pretraining, work.results

    plain = fused()
    assert fused("workers=2", "train.log_every=3") == plain
    for judged in (
        "protocol.fusion.weights=[1,1,1]",
        "protocol.fusion.scores=probabilities",
        "protocol.probe.length=11 steps",
    ):
        found = fused(judged)
        assert found[0] == plain[0] and found[1] != plain[1]
    for trained in ("train.lr=7e-3", "protocol.fusion.streams=[joint,motion,bone]", "seeds=[1]"):
        found = fused(trained)
        assert found[0] != plain[0] and found[1] != plain[1]


def test_other_protocols_stand_beside_fusion_and_every_pooling_is_fused(tiny):
    both = [*tiny, "method=slim", "protocol.names=[retrieval,fusion]", "protocol.pooling=both"]
    works = {w.cell: w for w in make_plan(both)[1]}
    assert list(works["slim bone"].judgements) == ["retrieval", JUDGED, "retrieval native", f"{JUDGED} native"]
    assert list(works["slim fused"].judgements) == [JUDGED, f"{JUDGED} native"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["protocol.names=[fusion:retrieval]"], "gives classes no scores"),
        (["protocol.names=[fusion:lineer]"], "did you mean 'linear'"),
        (["protocol.fusion.streams=[joint,bones]", "protocol.fusion.weights=[1,1]"], "unknown stream 'bones'"),
        (["protocol.fusion.streams=[joint]", "protocol.fusion.weights=[1]"], "two or more"),
        (["protocol.fusion.streams=[joint,joint]", "protocol.fusion.weights=[1,1]"], "each once"),
        (["protocol.fusion.weights=[1,1]"], "give one for each"),
        (["protocol.fusion.weights=[1,1,-1]"], "give one for each"),
        (["protocol.fusion.scores=logit"], "did you mean 'logits'"),
    ],
)
def test_what_cannot_be_fused_is_refused_before_anything_runs(tiny, overrides, message):
    with pytest.raises(BadInput) as caught:
        make_plan([*tiny, *FUSION, *overrides])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_streams_are_trained_judged_and_fused_once(tiny, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("SKELBENCH_OUT", str(tmp_path / "out"))
    line = [*[o for o in tiny if not o.startswith("workers")], *FUSION, "workers=2"]
    records = Records(tmp_path / "runs")
    works = {w.cell: w for w in make_plan(line)[1]}
    assert run.main([*line, "dry=true"]) == 0
    assert "11 pieces, 0 there, 11 to do" in capfd.readouterr().out and not (records.root / "plans").exists()

    # What a sweep that was killed may leave: two streams, and the fused work not even begun.
    for stream in ("joint", "motion"):
        execute.execute(works[f"mamp {stream}"], records)
    assert run.main(line) == 0
    printed = capfd.readouterr().out
    assert "11 pieces: 2 were there, 9 done now" in printed
    assert "streams joint, bone, motion, joint+bone+motion" in printed
    assert "weighted joint 0.6, bone 0.6, motion 0.4; weights are not tuned" in printed
    rows = rows_of(printed)
    assert list(rows)[:4] == ["mamp joint", "mamp bone", "mamp motion", "mamp fused"]
    assert list(rows)[4] == "untrained joint" and list(rows)[-1] == "raw motion", "floors stand below"

    for cell in ("mamp", "untrained"):
        logits, kept = [], {}
        for stream in ("joint", "bone", "motion", "fused"):
            work = works[f"{cell} {stream}"]
            kept[stream] = np.load(records.arrays_file(work.pretraining, work.results[0]))
            logits.append(kept[stream]["scores"].astype(np.float32))  # kept as halves
            found = records.result(work.pretraining, work.results[0])
            assert rows[work.cell] == f"{found['top1']:.1f}"
            assert found["top1"] == pytest.approx(100 * (logits[-1].argmax(1) == kept[stream]["truth"]).mean())
            assert (
                records.result(works[f"{cell} fused"].pretraining, works[f"{cell} fused"].results[0])[
                    "top1" if stream == "fused" else f"top1_{stream}"
                ]
                == found["top1"]
            )
        expected = 0.6 * logits[0] + 0.6 * logits[1] + 0.4 * logits[2]
        assert np.array_equal(kept["fused"]["predicted"], expected.argmax(1))
        assert np.allclose(logits[3], expected, atol=1e-5)
        assert not np.allclose(logits[0], logits[1]) and not np.allclose(logits[0], logits[2])

    def never(*arguments):
        raise AssertionError("a second call must do nothing")

    for name in ("pretrain", "judge", "combine"):
        monkeypatch.setattr(execute, name, never)
    assert run.main(line) == 0
    assert "11 pieces: 11 were there, 0 done now" in capfd.readouterr().out


def test_a_fused_work_alone_has_its_streams_made_first(tiny, tmp_path):
    work = make_plan([*tiny, *FUSION, "ablation.floors=false"])[1][-1]
    records = Records(tmp_path / "runs")
    execute.execute(work, records)
    assert all(records.complete(w.pretraining, w.results) for w in (*work.needs, work))
    assert records.about(work.pretraining)["fused"] == [n.pretraining for n in work.needs]
    records.arrays_file(work.needs[1].pretraining, work.needs[1].results[0]).unlink()
    records.result_file(work.pretraining, work.results[0]).unlink()
    with pytest.raises(BadInput, match="a result without scores"):
        execute.execute(work, records)


def test_the_queue_keeps_what_a_work_needs(tiny):
    from sweeps.work_queue import told, work_of

    for work in make_plan([*tiny, *FUSION])[1]:
        back = work_of(json.loads(json.dumps(told(work))))
        assert told(back) == told(work) and back.key == work.key and back.config.protocol == work.config.protocol
