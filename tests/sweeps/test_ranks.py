"""`ranks=2`: one training in two processes, from the command line."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from methods.distributed import world
from skeletons.errors import BadInput
from sweeps import run
from sweeps.composing import from_yaml
from sweeps.plan import make_plan


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Tables go to the test's folder."""
    monkeypatch.setenv("SKELBENCH_OUT", str(tmp_path / "out"))


def files(runs: Path) -> Counter:
    """How many there are of each, by their paths without identities."""
    mlflow = runs / "mlflow"
    found = [path for path in runs.rglob("*") if path.is_file() and mlflow not in path.parents]
    return Counter(re.sub(r"[0-9a-f]{12}|-[0-9a-f]{6}\b", "ID", str(path.relative_to(runs))) for path in found)


def test_two_ranks_leave_the_files_and_the_encoder_of_one(tiny, tmp_path, table, capfd):
    line = [*tiny, "method=skeletonclr", "protocol=retrieval", "ablation.floors=false"]
    one, two = tmp_path / "runs", tmp_path / "two"
    assert run.main(line) == 0
    assert run.main([*line, "ranks=2", f"runs={two}"]) == 0
    assert world() == 1, "no rank is left when the training is over"
    assert files(one) == files(two)
    (alone,), (both,) = (sorted(runs.glob("*/encoder.safetensors")) for runs in (one, two))
    assert alone.parent.name != both.parent.name, "the last bits differ, so the identity does"
    assert from_yaml((both.parent / "config.yaml").read_text()).ranks == 2
    weights, others = load_file(alone), load_file(both)
    assert max(float((weights[key] - others[key]).abs().max()) for key in weights) < 1e-5
    assert not all(torch.equal(weights[key], others[key]) for key in weights), "did both ranks take part at all?"
    (result,) = (json.loads(path.read_text()) for path in two.glob("*/eval/*/result.json"))
    assert 0 <= result["top1"] <= 100
    last = [json.loads((path.parent / "metrics.jsonl").read_text().splitlines()[-1]) for path in (alone, both)]
    assert last[0].keys() == last[1].keys() and last[0]["loss"] == pytest.approx(last[1]["loss"], rel=1e-5)


def test_a_rank_that_cannot_train_is_named(tiny, tmp_path, table, capfd, monkeypatch):
    """A follower that has another torch, or sees other data, refuses, and the run says so."""
    monkeypatch.setattr(torch, "__version__", "0.0.0")  # in this process alone
    assert run.main([*tiny, "method=mamp", "protocol=retrieval", "ablation.floors=false", "ranks=2"]) == 1
    said = capfd.readouterr().err
    assert "rank 1 of 2 ended before the training did" in said and "its device, data, torch or SkelBench differ" in said
    assert world() == 1 and not list((tmp_path / "runs").glob("*/encoder.safetensors"))


def test_a_method_whose_batch_norm_sees_one_rank_alone_is_refused(tiny, monkeypatch):
    monkeypatch.setattr("methods.distributed.of_one_rank", lambda method: ["projector.1"])
    make_plan([*tiny, "method=mamp"])
    with pytest.raises(BadInput, match=r"method 'mamp': projector.1 is a batch norm of each rank alone"):
        make_plan([*tiny, "method=mamp", "ranks=2"])


@pytest.mark.parametrize(
    ("ranks", "message"), [(3, "train.batch=8 must be a multiple of ranks=3"), (0, "ranks=0 must be at least 1")]
)
def test_ranks_that_cannot_share_a_batch_are_refused_before_anything_runs(ranks, message, tiny):
    with pytest.raises(BadInput, match=message):
        make_plan([*tiny, "method=mamp", f"ranks={ranks}"])
