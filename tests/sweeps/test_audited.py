"""A result carries what the audit said of its split."""

from __future__ import annotations

from skeletons import audit
from sweeps.execute import execute
from sweeps.plan import make_plan
from sweeps.records import Records, read_json


def test_results_carry_the_verdict_that_is_there(tiny, tmp_path):
    line = [*tiny, f"data.cache={tmp_path / 'cache'}"]

    def judged(runs: str) -> dict:
        config, works = make_plan([*line, "method=untrained", "protocol=retrieval", f"runs={tmp_path / runs}"])
        work, records = works[0], Records(config.runs)
        execute(work, records)
        return read_json(records.result_file(work.pretraining, next(iter(work.judgements.values())).identity))

    before = judged("before")
    assert audit.main([a for a in line if a.startswith("data") and "split" not in a]) == 0
    after = judged("after")
    said = "no test clip is a training clip; the recordings have 2 PROBLEMs: bone lengths, rigid bones"
    assert "audit" not in before and after["audit"] == said
    assert before["identity"] == after["identity"], "what is said of a split does not change what was measured"
