"""What missing work will cost, and when a sweep will be over."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sweeps import progress
from sweeps.forecast import Forecast, flops_in_words, in_words
from sweeps.plan import make_plan
from sweeps.progress import Progress
from sweeps.records import Records, provenance, write_json


def ran(records, work, clips_per_second, **changes):
    """Leave the traces of a run, as `execute` does."""
    from sweeps.composing import to_yaml
    from sweeps.identity import data_of, pretraining_identity
    from sweeps.records import write_text

    config = replace(work.config, **changes)
    identity, content = pretraining_identity(config, *data_of(config))
    folder = records.run(identity)
    about = {"identity": identity, "hashed": content, "method": config.method.name, "finished": "2026-01-01 00:00:00"}
    write_json(folder / "run.json", {**about, "clips_per_second": clips_per_second, **provenance()})
    write_text(folder / "config.yaml", to_yaml(config))


@pytest.fixture
def planned(tiny, tmp_path):
    def plan(*line):
        works = make_plan([*tiny, "ablation.floors=false", *line])[1]
        return Records(tmp_path / "runs"), works

    return plan


def test_a_run_of_another_length_and_seed_says_how_long_it_takes(planned):
    records, (work,) = planned("method=mamp", "train.length=50 steps")
    assert Forecast(records).of([work])[work.key].seconds is None
    ran(records, work, 16.0, seeds=[5], train=replace(work.config.train, length="6 steps"))
    cost = Forecast(records).of([work])[work.key]
    assert cost.measured and cost.seconds == pytest.approx(50 * 8 / 16.0)  # steps x batch / clips a second
    whole = Forecast(records).of(planned("method=mamp")[1])  # of 6 steps
    assert cost.flops == pytest.approx(50 / 6 * next(iter(whole.values())).flops)


def test_what_was_never_run_is_told_by_its_flops(planned):
    records, (short, long) = planned("method=mamp", "grid.views.frames=32,64")
    ran(records, short, 16.0)
    found = Forecast(records).of([short, long])
    known, guessed = found[short.key], found[long.key]
    assert known.measured and not guessed.measured
    assert guessed.flops > 1.5 * known.flops
    assert guessed.seconds == pytest.approx(known.seconds * guessed.flops / known.flops)
    uncounted = Forecast(records, count=False).of([short, long])
    assert uncounted[short.key].seconds == known.seconds and uncounted[long.key].seconds is None


def test_where_the_methods_own_runs_cannot_be_read_any_more_another_methods_tell(planned):
    records, (gone, wanted) = planned("method=mamp", "grid.train.lr=0.1,0.2")
    _, (other,) = planned("method=skeletonmae")
    ran(records, gone, 16.0)
    (records.run(gone.pretraining) / "config.yaml").write_text("an: older version's")
    assert Forecast(records).of([wanted])[wanted.key].seconds is None
    ran(records, other, 16.0)
    assert Forecast(records).of([wanted])[wanted.key].seconds > 0


def test_another_machines_speed_says_nothing(planned):
    records, (work,) = planned("method=mamp")
    ran(records, work, 16.0)
    path = next(records.root.glob("*/run.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": "a large one"}))
    assert Forecast(records).of([work])[work.key].seconds is None


def test_an_encoder_that_several_pieces_need_is_trained_once(planned):
    records, works = planned("method=mamp", "grid.protocol.probe.length=5 steps,6 steps")
    first, second = (Forecast(records).of(works)[w.key].flops for w in works)
    assert first > 0 and second == 0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0.4 s"), (45, "45 s"), (600, "10 min"), (7200, "2.0 h"), (200_000, "2.3 days")]
)
def test_times_read_as_a_person_says_them(seconds, words):
    assert in_words(seconds) == words


def test_flops_read_with_their_prefix():
    assert flops_in_words(3.2e12) == "3.2 TFLOPs" and flops_in_words(1.5e18) == "1.5 EFLOPs"


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_what_has_not_begun_is_as_much_slower_as_the_others_were(clock, capsys):
    shown = Progress(3, 1, {"a": 10.0, "b": 30.0, "c": 5.0})
    assert shown.remaining() == 45
    shown.event("started", "a", {"cell": "a"})
    clock[0] = 4.0
    assert shown.remaining() == 45 - 4
    for clock[0], step in ((10.0, 50), (20.0, 100)):  # twice as long as expected
        shown.event("training", "a", {"step": step, "steps": 100})
    shown.event("finished", "a", {})
    assert shown.remaining() == pytest.approx(2 * (30 + 5))
    assert "(1/3; about" in capsys.readouterr().out


def test_a_running_piece_goes_on_at_its_own_speed(clock):
    shown = Progress(1, 1, {"a": 10.0})
    shown.event("started", "a", {"cell": "a"})
    clock[0] = 3.0
    shown.event("training", "a", {"step": 60, "steps": 100})  # an earlier command did most of that
    clock[0] = 13.0
    shown.event("training", "a", {"step": 70, "steps": 100})
    assert shown.remaining() == pytest.approx(30)
    before = shown.remaining()
    clock[0] = 15.0
    assert shown.remaining() == pytest.approx(before - 2)


def test_floors_do_not_tell_how_long_trainings_take_that_were_never_run(clock):
    shown = Progress(4, 2, {"raw": 0.0, "untrained": 2.0, "slim": None, "mamp": None})
    for floor in ("raw", "untrained"):
        shown.event("started", floor, {"cell": floor})
        clock[0] += 2.0
        shown.event("finished", floor, {})
    assert shown.remaining() is None
    shown.event("started", "slim", {"cell": "slim"})
    clock[0] = 10.0
    shown.event("training", "slim", {"step": 1, "steps": 100})
    assert shown.remaining() is None
    clock[0] = 20.0
    shown.event("training", "slim", {"step": 11, "steps": 100})
    whole = 100 + 2  # and be judged as long as the untrained one was
    assert shown.remaining() == pytest.approx(whole)  # two workers: mamp, at the same speed, takes longest
    shown.event("started", "mamp", {"cell": "mamp"})
    clock[0] = 21.0
    shown.event("failed", "mamp", {"reason": "why"})
    assert shown.remaining() == pytest.approx(89 + 2 - 1)


def test_of_workers_elsewhere_and_of_trials_it_is_told_by_what_has_ended(clock):
    shown = Progress(3, 1)
    shown.event("started", "a", {"cell": "a"})
    shown.event("training", "a", {"step": 1, "steps": "?"})
    assert shown.remaining() is None
    clock[0] = 8.0
    shown.event("finished", "a", {})
    shown.event("died", "", {"reason": "why"})
    assert shown.remaining() == 16


def test_a_trial_that_was_only_judged_does_not_tell_how_long_the_others_train(clock):
    shown = Progress(2, 1)
    shown.event("started", "0", {"cell": "trial 0"})
    clock[0] = 1.0
    shown.event("finished", "0", {})
    assert shown.remaining() is None


def test_judging_takes_as_long_as_it_took(clock):
    shown = Progress(2, 1, {"a": 10.0, "b": 10.0})  # training alone: these protocols were never run
    shown.event("started", "a", {"cell": "a"})
    for clock[0], step in ((5.0, 50), (10.0, 100)):
        shown.event("training", "a", {"step": step, "steps": 100})
    clock[0] = 100.0
    shown.event("finished", "a", {})
    assert shown.remaining() == pytest.approx(100)
    shown.event("started", "b", {"cell": "b"})
    for clock[0], step in ((105.0, 50), (110.0, 100)):
        shown.event("training", "b", {"step": step, "steps": 100})
    assert shown.remaining() == pytest.approx(90)
