"""Encoders of streams and their fusion, end to end, at a size of seconds."""

from __future__ import annotations

import json

import pytest

from methods.checkpoint import told_with
from skeletons.errors import BadInput
from sweeps import run
from sweeps.plan import make_plan
from sweeps.records import Records


@pytest.fixture(autouse=True)
def out(tmp_path, monkeypatch):
    """Tables go to the test's folder."""
    monkeypatch.setenv("SKELBENCH_OUT", str(tmp_path / "out"))


def test_an_encoder_from_a_file_is_judged_on_the_stream_it_was_trained_on(tiny, tmp_path, capfd):
    line = [*tiny, "protocol=retrieval", "protocol.pooling=mean"]
    assert run.main([*line, "method=mamp", "data.stream=bone"]) == 0
    assert ", bone stream, split xsub" in capfd.readouterr().out
    records = Records(tmp_path / "runs")
    trained = next(p.parent for p in records.root.glob("*/run.json") if '"method": "mamp"' in p.read_text())
    untrained = next(p.parent for p in records.root.glob("*/run.json") if '"method": "untrained"' in p.read_text())
    assert told_with(trained / "encoder.safetensors")["stream"] == "bone"
    assert "stream" not in told_with(untrained / "encoder.safetensors")
    (before,) = (json.loads(p.read_text()) for p in trained.glob("eval/*/result.json"))
    assert before["stream"] == "bone"

    given = [*line, f"encoder={trained / 'encoder.safetensors'}"]
    works = make_plan(given)[1]
    assert {w.config.data.stream for w in works} == {"bone"}, "the floors too"
    assert run.main(given) == 0
    assert ", bone stream, split xsub" in capfd.readouterr().out
    adopted = next(p.parent for p in records.root.glob("*/run.json") if '"method": "encoder"' in p.read_text())
    assert told_with(adopted / "encoder.safetensors")["stream"] == "bone"
    (after,) = (json.loads(p.read_text()) for p in adopted.glob("eval/*/result.json"))
    assert (after["top1"], after["stream"]) == (before["top1"], "bone")
    assert make_plan([*given, "data.stream=bone"])[1][-1].config.data.stream == "bone"
    with pytest.raises(BadInput, match="trained on the bone stream"):
        make_plan([*given, "data.stream=joint"])
