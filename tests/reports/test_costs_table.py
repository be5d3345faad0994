"""Costs of every method: that what is remembered is what is counted, and what the tables say of it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, replace

import pytest
import torch

from methods.flops import encoder_flops
from reports import counting, measuring
from reports.contents import everything
from reports.costs_table import networks, ratio_table, steps
from reports.counting import SHIPPED, Costs, Measured, cost_key, every_method
from reports.flops import main
from reports.formats import Table
from skeletons.errors import BadInput
from sweeps.composing import compose
from sweeps.costs import cost
from sweeps.records import Records, write_json

MEASURED = Measured("a chip", 1, "2.13", "c0ffee", "2026-11-21", 12.34, 567.8, 64, 90.1, 234.5, 8)


@pytest.fixture(scope="module")
def costs() -> Costs:
    return Costs()


def shown(table: Table) -> dict[tuple[str, str], dict[str, str]]:
    return {(str(r[0]), str(r[1])): dict(zip(table.columns, map(str, r))) for r in table.rows}


@pytest.mark.parametrize(("method", "setting"), [("skeletonmae", "paper"), ("gfp", "matched")])
def test_what_is_remembered_is_what_is_counted(method: str, setting: str):
    config = every_method("paper")[method, setting]
    assert counting.from_plain(config, json.loads(SHIPPED.read_text())["counted"][cost_key(config)]) == cost(config)


def test_a_report_counts_nothing_that_is_remembered(tmp_path, monkeypatch):
    """Counting at paper scale takes seconds, which every report in a new folder would wait for."""
    monkeypatch.setattr(counting, "cost", lambda config: pytest.fail(f"{config.method.name} is counted anew"))
    assert everything(Records(tmp_path), [])[0]


def test_remembered_encoders_by_formula(costs: Costs):
    """The other way of counting, at paper scale: inference of all methods, and training of those that drop tokens."""
    for (name, setting), config in every_method("paper").items():
        found, b = costs.counted(config), config.backbone
        times, joints = config.views.frames // b.patch, 25
        if name == "asma":  # two encoders and what aligns them
            assert found.inference.flops > 2 * encoder_flops(b, times, joints)
        else:
            assert found.inference.flops == encoder_flops(b, times, joints), (name, setting)
        one = found.passes.get("encoder")
        if one and one.tokens < found.inference.tokens and name != "hacm":  # hacm embeds fewer joints than it drops
            extra = b.registers + b.class_token
            assert one.flops == encoder_flops(b, times, joints, one.tokens - extra), (name, setting)


def test_the_key_holds_what_a_count_reads_and_nothing_else():
    plain = compose(["method=mamp"])
    same = [
        replace(plain, train=replace(plain.train, log_every=7)),
        replace(plain, data=replace(plain.data, name="irds")),
        replace(plain, seeds=[5]),
    ]
    other = [
        replace(plain, train=replace(plain.train, batch=3)),
        replace(plain, decoder=replace(plain.decoder, depth=4)),
        replace(plain, masking=replace(plain.masking, ratio=0.5)),
        compose(["method=skeletonmae"]),
    ]
    assert {cost_key(config) for config in same} == {cost_key(plain)}
    assert len({cost_key(config) for config in [plain, *other]}) == 1 + len(other)


def test_what_was_counted_anew_is_kept_with_the_runs_and_not_counted_again(tmp_path, monkeypatch):
    config = compose(["method=mamp", "scale=demo"])
    first = Costs(tmp_path).counted(config)
    assert (tmp_path / "costs.json").is_file()

    def never(config):
        raise AssertionError("counted twice")

    monkeypatch.setattr(counting, "cost", never)
    assert Costs(tmp_path).counted(config) == first
    with pytest.raises(AssertionError):
        Costs().counted(config)


def test_networks_stand_beside_the_published_ones(costs: Costs):
    rows = shown(networks(costs))
    mamp, deeper, slim = rows["mamp", "paper"], rows["mamp, decoder of 5", "paper"], rows["slim", "paper"]
    assert (mamp["inference, one person"], mamp["two persons"], mamp["published inference"]) == (
        "14.05",
        "28.10",
        "28.32",
    )
    assert (mamp["decoder"], mamp["published decoder"]) == ("10.56", "-")
    assert (deeper["decoder"], deeper["published decoder"]) == ("17.59", "17.70")
    assert (slim["two persons"], slim["target network"], slim["published target"]) == ("5.85", "5.85", "3.59")
    assert rows["gfp", "paper"]["published target"] == "0.64" and rows["gfp", "matched"]["published target"] == "-"
    assert {setting for _, setting in rows} == {"paper", "matched"} and rows["untrained", "paper"][
        "schedule, exa"
    ] == "-"
    parts = shown(steps(costs))["slim", "paper"]
    assert float(parts["whole step"]) == pytest.approx(
        sum(float(parts[c]) for c in ("encoder, all views", "target network", "heads", "loss", "sinkhorn", "backward")),
        abs=0.05,
    )


def test_ratios_are_honest(costs: Costs):
    rows = {str(row[0]): [str(cell) for cell in row] for row in ratio_table(costs).rows}
    by_ours = {row[4]: row[5] for row in rows.values()}
    assert by_ours["4.80"] == by_ours["4.78"] == "does not hold as counted here"
    assert by_ours["14.39"] == "holds as counted here"
    assert float(rows["a training step on a clip: SLiM to MAMP"][4]) > 1


def test_measured_numbers_stand_in_the_same_table(tmp_path):
    key = cost_key(every_method("paper")["slim", "paper"])
    write_json(tmp_path / "costs.json", {"measured": {key: {"a chip, 1 thread": asdict(MEASURED)}}})
    table = networks(Costs(tmp_path))
    row = shown(table)["slim", "paper"]
    assert [row[c] for c in ("latency, ms", "clips/s", "step, ms a clip", "step, MiB")] == [
        "12.3",
        "568",
        "90.1",
        "234",
    ]
    assert any("measured on a chip, 1 thread" in note for note in table.notes)


def test_measuring_a_small_method(monkeypatch):
    monkeypatch.setattr(measuring, "BUDGET", 0.0)
    found = measuring.measure(compose(["method=slim", "scale=demo"]), clips=2, step_clips=4)
    assert min(found.milliseconds, found.clips_per_second, found.step_milliseconds) > 0 and found.step_clips == 4
    still = measuring.measure(compose(["method=untrained", "scale=demo"]), clips=2, step_clips=4)
    assert still.milliseconds > 0 and still.step_milliseconds == still.mebibytes == still.step_clips == 0
    assert torch.get_num_threads() == 1


def test_the_command_measures_and_keeps(tmp_path, monkeypatch, capsys):
    asked = []

    def run(command, **options):
        asked.append(command[3:])
        wrong = "method=gfp" in command
        return subprocess.CompletedProcess(
            command, int(wrong), "" if wrong else json.dumps(asdict(MEASURED)), "no memory"
        )

    monkeypatch.setattr(measuring.subprocess, "run", run)
    line = ["measure=true", "method=slim,gfp", "setting=paper", "scale=demo", "clips=4", f"runs={tmp_path}"]
    assert main(line) == 1
    assert asked[0] == ["4", "8", "method=slim", "setting=paper", "scale=demo"]
    assert "gfp            paper    failed: no memory" in capsys.readouterr().out
    kept = Costs(tmp_path).measured(compose(["method=slim", "setting=paper", "scale=demo"]))
    assert kept == {"a chip, 1 thread": MEASURED}
    for wrong in (["clips=none"], [f"runs={tmp_path / 'nowhere'}"]):
        with pytest.raises(BadInput):
            main([*line, *wrong])
