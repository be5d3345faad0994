from __future__ import annotations

import numpy as np
import pytest

from skeletons.errors import BadInput
from sweeps.plan import grid_cells, layered, make_plan
from sweeps.run import plan_name, what_it_is
from sweeps.tuned import write_tuned

PERSONS = ("present", "mamp")


def identities(overrides: list[str]) -> dict[str, str]:
    return {w.cell: w.pretraining for w in make_plan(overrides)[1]}


def test_table_6_has_its_five_cells_and_two_floors(tiny):
    works = make_plan([*tiny, "ablation=stm"])[1]
    assert [w.cell for w in works] == [
        *("raw", "untrained"),
        *("no-global", "limited-global", "no-local", "limited-local", "dual"),
    ]
    assert len({w.pretraining for w in works}) == 7
    strategies = {w.cell: (w.config.masking.global_view, w.config.masking.local_view) for w in works}
    assert strategies["no-global"] == ("none", "tube")
    assert strategies["limited-global"] == ("motion", "tube")
    assert strategies["dual"] == ("tube", "tube")


def test_some_of_an_ablations_cells_are_pieces_of_the_whole_table(tiny):
    whole = {(w.cell, w.pretraining) for w in make_plan([*tiny, "ablation=mamp", "budget=flops"])[1]}
    line = [*tiny, "ablation=mamp", "budget=flops", "cells=[joints random,random]"]
    some = [(w.cell, w.pretraining) for w in make_plan(line)[1]]
    assert [cell for cell, _ in some] == ["raw", "untrained", "joints random", "random"]
    assert whole.issuperset(some)  # also the untrained encoder's, and lengths made equal to the reference cell's


@pytest.mark.parametrize(
    "neutral",
    [
        "workers=2",
        "train.log_every=3",
        "train.checkpoint_seconds=1",
        "train.evaluations=2",
        "masking.tau=0.5",
        "train.freeze_last=0 run",
    ],
)
def test_what_cannot_change_a_result_stays_out_of_its_identity(tiny, neutral):
    assert identities([*tiny, "method=slim"]) == identities([*tiny, "method=slim", neutral])


@pytest.mark.parametrize(
    "changed",
    [
        "train.lr=1e-3",
        "train.length=7 steps",
        "train.freeze_last=0.5 run",
        "train.optimizer=sgd",
        "train.patch_embed_rate=0.2",
        "threads=2",
        "seeds=[1]",
        "masking.ratio=0.5",
        "masking.local_probability=1.0",
        "masking.strategy=motion",
        "masking.global_probability=0.5",
        "masking.ratio_draw=stratified",
        "masking.subsets=contiguous",
        "masking.volume=free",
        "masking.local_largest_area=1",
        "augment.global_2.noise=0.05",
        "augment.scale_sides=together",
        "method.every_local=true",
        "augment.yaw=0.3",
        "backbone.mlp=swiglu",
        "teacher.half_life=0.1",
        "method.lambda_glcl=2",
        "views.crop_low=0.4",
        "data.split=xview",
    ],
)
def test_what_can_change_a_result_changes_its_identity(tiny, changed):
    assert identities([*tiny, "method=slim"])["slim"] != identities([*tiny, "method=slim", changed])["slim"]


def test_tau_matters_where_motion_is_masked_and_only_there(tiny):
    for strategy, same in (("motion", False), ("tube", True)):
        line = [*tiny, "method=slim", f"masking.strategy={strategy}"]
        assert (identities(line) == identities([*line, "masking.tau=0.5"])) is same


def test_a_field_of_another_method_invalidates_nothing(tiny):
    line = [*tiny, "method=mamp"]
    assert identities(line) == identities([*line, "heads.prototypes=8", "teacher.momentum=0.9"])


def test_the_same_length_in_other_words_is_the_same_run(tiny):
    line = [*tiny, "method=mamp"]
    assert identities(line) == identities([*line, "train.length=48 clips"])


def test_cells_with_equal_meaning_share_their_encoder(tiny):
    dual = identities([*tiny, "ablation=stm"])["dual"]
    assert identities([*tiny, "method=slim"])["slim"] == dual


def test_the_command_line_wins_over_the_cell(tiny):
    works = make_plan([*tiny, "ablation=stm", "masking.local_view=none"])[1]
    assert all(w.config.masking.local_view == "none" for w in works)


def test_a_grid_crosses_its_values(tiny):
    plain, cells = grid_cells(["method=slim", "grid.masking.ratio=0.5,0.7", "grid.train.lr=1e-4,2e-4"])
    assert plain == ["method=slim"]
    assert list(cells.values())[1] == ["masking.ratio=0.5", "train.lr=2e-4"]
    works = make_plan([*tiny, "grid.masking.ratio=0.5,0.7"])[1]
    assert [w.config.masking.ratio for w in works[-2:]] == [0.5, 0.7]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=mamp", "masking=none"], "no loss without hidden tokens"),
        (["masking.strategy=tubes"], "did you mean 'tube'"),
        (["masking.ratio=1.5"], "masking.ratio=1.5"),
        (["masking.ratio=high"], "masking.ratio=high"),
        (["views.frames=30"], "multiple of backbone.patch"),
        (["backbone.heads=3"], "divisible"),
        (["train.length=many epochs"], "write a number"),
        (["train.precision=fp8"], "train.precision"),
        (["masking.volume=constnt"], "did you mean 'constant'"),
        (["train.optimizer=adamm"], "did you mean"),
        (["augment.rotation=awre"], "did you mean 'aware'"),
        (["protocol.names=[lineer]"], "did you mean 'linear'"),
        (["data.split=xsubb"], "has no split"),
        (["grid.masking.ratio=0.5,,"], "grid.KEY"),
        (["splits=[xsub,nothing]"], "has no split"),
        (["protocol.pooling=median"], "pooling"),
        (["protocol=transfer"], "protocol.targets"),
        (["protocol.names=[retrieval:5]"], "takes no argument"),
        (["protocol.names=[transfer:nwcla]"], "did you mean 'nwucla'"),
    ],
)
def test_what_could_only_fail_later_is_refused_before_anything_runs(tiny, overrides, message):
    with pytest.raises(BadInput) as caught:
        make_plan([*tiny, *overrides])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_of_ones_own_needs_no_place_in_the_package(tiny, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("reference: a\ncells: {a: [method=mamp], b: [method=gfp]}\n")
    config, works = make_plan([*tiny, f"ablation={file}"])
    assert [w.cell for w in works] == ["raw", "untrained", "a", "b"]
    assert plan_name(config, works).startswith("mine-archive-demo-")
    file = tmp_path / "wrong.yaml"  # a file is read once
    file.write_text("reference: c\ncells: {a: [method=mamp], b: [method=gfp]}\n")
    with pytest.raises(BadInput, match=r"unknown ablation.reference 'c'; .*known: a, b"):
        make_plan([*tiny, f"ablation={file}"])


def test_settings_beside_a_grid_of_methods_are_the_methods_own(tiny):
    config, works = make_plan([*tiny, "grid.method=mamp,sjepa", "grid.views.frames=32,64"])
    assert what_it_is(config, works) == ("method-frames", "method: mamp, sjepa; views.frames: 32, 64; on archive")
    make_plan([*tiny, "grid.method=mamp", "method.stride=2"])
    with pytest.raises(BadInput, match=r"cell method=sjepa: unknown key 'method.stride'"):
        make_plan([*tiny, "grid.method=mamp,sjepa", "method.stride=2"])


def test_equal_flops_make_the_cheaper_method_run_longer(tiny):
    from sweeps.budget import step_flops

    line = [*tiny, "budget=flops", "grid.backbone.patch=4,8", "method=mamp", "train.length=1000 steps"]
    fine, coarse = (w.config for w in make_plan(line)[1] if "backbone.patch" in w.cell)
    steps = [int(c.train.length.split()[0]) for c in (fine, coarse)]
    assert steps[0] == 1000 < steps[1]
    costs = [n * step_flops(c) for n, c in zip(steps, (fine, coarse))]
    assert costs[1] == pytest.approx(costs[0], rel=1e-3)


def test_a_longer_run_keeps_its_share_of_warm_up(tiny):
    line = [*tiny, "budget=flops", "grid.backbone.patch=4,8", "method=mamp", "train.length=1000 steps"]
    line += ["train.warmup=100 steps", "train.freeze_last=0.5 run"]
    _, coarse = (w.config.train for w in make_plan(line)[1] if "backbone.patch" in w.cell)
    assert coarse.length != "1000 steps" and (coarse.warmup, coarse.freeze_last) == ("0.1 run", "0.5 run")


def test_empty_bodies_cost_what_others_do_where_they_are_encoded(tiny):
    from sweeps.budget import step_flops
    from sweeps.identity import data_of

    present, all_of_them = (make_plan([*tiny, "method=mamp", f"method.persons={p}"])[1][-1].config for p in PERSONS)
    clips, part = data_of(present)
    share = clips.present[part.train].mean()
    assert share < 1
    assert step_flops(present) == pytest.approx(share * step_flops(all_of_them), rel=0.02)


def test_equal_seconds_are_measured_once(tiny, tmp_path, monkeypatch):
    from sweeps import budget

    line = [*tiny, "budget=seconds", "grid.method=mamp,supervised", "train.length=1000 steps"]
    first = [w.config.train.length for w in make_plan(line)[1] if w.cell.startswith("method=")]
    assert first[0] == "1000 steps" and int(first[1].split()[0]) > 0
    assert len((tmp_path / "runs" / "throughput.json").read_text().split("seconds")) == 3
    monkeypatch.setattr(budget, "_measured", None)
    assert [w.config.train.length for w in make_plan(line)[1] if w.cell.startswith("method=")] == first


def test_unknown_budgets_are_refused(tiny):
    with pytest.raises(BadInput, match="unknown budget 'flop'; did you mean 'flops'"):
        make_plan([*tiny, "method=mamp", "budget=flop"])


def test_every_method_and_every_strategy_has_its_cell(tiny):
    from methods.base import all_methods
    from methods.masking import all_strategies

    cells = {w.cell: w.config for w in make_plan([*tiny, "ablation=methods"])[1]}
    assert {c.method.name for c in cells.values()} == set(all_methods())
    works = make_plan([*tiny, "ablation=masking"])[1]
    masked = [w.config for w in works]
    for method in ("mamp", "slim"):
        found = {c.masking.strategy for c in masked if c.method.name == method}
        assert found >= set(all_strategies()) - {"none"}
    assert len({w.pretraining for w in works}) == len(works)


def test_folds_stand_for_every_fold(tiny, archive, tmp_path):
    with np.load(archive) as arrays:
        np.savez(tmp_path / "folded.npz", **arrays, fold=arrays["subject"] % 3)
    line = [o for o in tiny if not o.startswith("data.")] + [f"data.file={tmp_path / 'folded.npz'}"]
    works = make_plan([*line, "method=untrained", "data.split=xsub", "splits=[folds]", "ablation.floors=false"])[1]
    assert [w.split for w in works] == ["fold:0", "fold:1", "fold:2"]
    with pytest.raises(BadInput, match="has no folds"):
        make_plan([*tiny, "splits=[folds]"])


def everything(overrides: list[str]) -> list[tuple[str, list[str]]]:
    return [(w.pretraining, w.results) for w in make_plan(overrides)[1]]


def test_joints_are_the_neutral_stream_and_others_are_other_work(tiny):
    line = [*tiny, "method=mamp"]
    plain = everything(line)
    assert everything([*line, "data.stream=joint"]) == plain
    found = {s: make_plan([*line, f"data.stream={s}"])[1] for s in ("joint", "bone", "motion")}
    assert len({w.pretraining for works in found.values() for w in works if w.cell == "mamp"}) == 3
    assert len({w.pretraining for works in found.values() for w in works if w.cell == "untrained"}) == 1
    for place in range(3):  # raw, untrained and mamp are judged on their own stream
        judged = [set(works[place].results) for works in found.values()]
        assert not set.intersection(*judged) and len(set.union(*judged)) == 3 * len(judged[0])


@pytest.mark.parametrize(("method", "marked"), [("aimclr", True), ("sjepa", True), ("mamp", False)])
def test_runs_that_augmented_bones_or_motion_are_other_runs_and_those_on_joints_are_not(tiny, method, marked):
    from sweeps.identity import data_of, pretraining_identity

    for stream in ("joint", "bone"):
        config = make_plan([*tiny, f"method={method}", f"data.stream={stream}"])[0]
        versions = pretraining_identity(config, *data_of(config))[1]["versions"]
        assert ("augments" in versions) == (marked and stream == "bone")


def test_a_transfer_keeps_the_stream(tiny):
    from sweeps.identity import data_of

    config = make_plan([*tiny, "method=mamp", "data.stream=bone"])[0]
    assert data_of(config)[0].stream == data_of(config, "demo")[0].stream == "bone"


def test_a_cell_may_set_the_stream(tiny):
    works = make_plan([*tiny, "method=mamp", "grid.data.stream=bone,motion"])[1]
    assert [w.config.data.stream for w in works] == ["bone", "bone", "bone", "motion"]
    assert len({w.pretraining for w in works}) == 4


def test_an_unknown_stream_is_refused(tiny):
    with pytest.raises(BadInput, match="did you mean 'motion'"):
        make_plan([*tiny, "method=mamp", "data.stream=motions"])


def test_a_transfer_is_judged_twice_and_says_so(tiny):
    works = make_plan([*tiny, "method=mamp", "protocol.names=[retrieval,transfer:demo20]"])[1]
    raw, mamp = works[0], works[-1]
    assert list(mamp.judgements) == ["retrieval", "transfer:demo20 frozen", "transfer:demo20 fine-tuned"]
    frozen, tuned = list(mamp.judgements.values())[1:]
    assert (frozen.target, tuned.target) == ("demo20", "demo20")
    assert (frozen.heading, tuned.heading) == ("frozen on demo20", "fine-tuned on demo20")
    assert len({j.identity for j in mamp.judgements.values()}) == 3
    assert list(raw.judgements) == ["retrieval", "transfer:demo20 frozen"]
    other = make_plan([*tiny, "method=mamp", "protocol.names=[transfer:demo20@xview]"])[1][-1]
    assert other.judgements["transfer:demo20@xview frozen"].identity != frozen.identity
    assert other.pretraining == mamp.pretraining
    plain = make_plan([*tiny, "method=mamp", "protocol=transfer", "protocol.targets=[demo20]"])[1][-1]
    assert plain.judgements == {key: mamp.judgements[key] for key in plain.judgements} and len(plain.judgements) == 2


def test_a_piece_with_other_results_is_another_piece(tiny):
    """A sweep that was killed leaves its queue; one with other protocol settings must not take that for its own."""
    lines = [[*tiny, "method=mamp", f"protocol.probe.length={steps} steps"] for steps in (4, 5)]
    (one, first), (other, second) = (make_plan(line) for line in lines)
    assert first[-1].pretraining == second[-1].pretraining and first[-1].key != second[-1].key
    assert plan_name(one, first) != plan_name(other, second)


def test_tables_5_6_and_7_train_the_full_slim_once(tiny):
    """And Table 5's GLCL alone is Table 6's cell without a global mask, as published (75.3)."""
    stm, objective, saa = (identities([*tiny, f"ablation={name}"]) for name in ("stm", "objective", "saa"))
    assert stm["dual"] == objective["mfm+glcl"] == saa["all"]
    assert stm["no-global"] == objective["glcl"] != objective["cl"]
    assert len({*stm.values(), *objective.values(), *saa.values()}) == 2 + 5 + 3 + 6


def test_later_layers_of_overrides_win():
    assert layered(["method=mamp", "a=1"], ["method=skeletonmae"], ["a=2", "b=3"]) == [
        "method=skeletonmae",
        "a=2",
        "b=3",
    ]


def test_what_was_tuned_makes_no_cell_another_one(tiny, tmp_path):
    """A file from tune.py names a method and values; a cell's own win over them, as the command line does."""
    file = tmp_path / "best.yaml"
    write_tuned(file, ["method=slim", "masking.ratio=0.6", "train.lr=0.003"], {})
    line = [*tiny, f"tuned={file}", "ablation.floors=false"]
    cells = {w.cell: w.config for w in make_plan([*line, "ablation=ratio"])[1]}
    assert cells["mamp 0.5"].method.name == "mamp" and cells["mamp 0.5"].masking.ratio == 0.5
    assert {c.method.name for c in cells.values()} == {"mamp", "slim"}
    assert {c.train.lr for c in cells.values()} == {0.003}
    assert {w.config.method.name for w in make_plan([*line, "ablation=hacm"])[1]} == {"hacm"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["seeds=[]"], "at least one"),
        (["seeds=[0,0]"], "give each once"),
        (["splits=[xsub,xsub]"], "give each once"),
        (["ablation=mamp", "cells=[joint]"], "unknown cell 'joint'; did you mean 'joints'"),
        (["cells=[full]"], "unknown cell 'full'"),
        (["threads=0"], "must be at least"),
        (["workers=-1"], "must be at least"),
        (["launch.lost=0"], "must be at least"),
        (["device=gpu"], "known are auto, cpu, cuda"),
        (["device=cuda:x"], "known are auto, cpu, cuda"),
        (["device=cuda:99"], "this machine has"),
    ],
)
def test_a_command_that_cannot_be_is_refused_before_anything_runs(wrong, message, tiny):
    with pytest.raises(BadInput, match=message) as caught:
        make_plan([*(o for o in tiny if not o.startswith(wrong[0].partition("=")[0])), "method=mamp", *wrong])
    assert "\n" not in str(caught.value)


def test_what_a_cluster_runs_on_gpus_is_planned_so_on_a_machine_without_one(tiny):
    tiny = [o for o in tiny if not o.startswith("device")]
    _, works = make_plan([*tiny, "method=mamp", "launcher=slurm", "launch.gpus=1"])
    assert {w.config.device for w in works} == {"cuda"}
    (here,) = (w for w in make_plan([*tiny, "method=mamp", "device=cpu"])[1] if w.cell == "mamp")
    assert here.pretraining not in {w.pretraining for w in works}, "a GPU's last bits differ"
