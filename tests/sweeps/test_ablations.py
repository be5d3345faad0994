"""Every ablation of conf/ablation: it resolves at every scale, and some run to their table."""

from __future__ import annotations

import csv

import pytest

from sweeps import run
from sweeps.composing import compose
from sweeps.groups import options
from sweeps.plan import check, of_cell


@pytest.mark.parametrize("scale", options("scale"))
@pytest.mark.parametrize("name", options("ablation"))
def test_every_cell_of_every_ablation_resolves(name, scale):
    config = compose([f"ablation={name}", f"scale={scale}"])
    a = config.ablation
    assert a.name == name and a.title and f"ablation={name}" in a.note
    assert a.reference.removesuffix(" joint") in a.cells
    assert set(a.differs) <= set(a.cells) and set(a.at) <= set(options("scale"))
    for changes in a.cells.values():
        check(compose(of_cell(config, changes, [f"ablation={name}", f"scale={scale}"])))


@pytest.mark.parametrize("name", ["objective", "asma", "amr"])
def test_an_ablation_runs_to_its_table(name, tiny, tmp_path, monkeypatch):
    """`stm` does so in test_run.py."""
    monkeypatch.setenv("SKELBENCH_OUT", str(tmp_path / "out"))
    assert run.main([*tiny, f"ablation={name}", "train.length=2 steps", "protocol.names=[retrieval]"]) == 0
    (path,) = (tmp_path / "out").rglob(f"{name}-archive-*.csv")
    with open(path) as file:
        rows = {row[0]: row for row in csv.reader(file)}
    a = compose([f"ablation={name}"]).ablation
    column = next(i for i, heading in enumerate(rows["cell"]) if heading.startswith("1-NN"))
    for cell in (*a.cells, "untrained", "raw"):
        assert 0 <= float(rows[cell][column].split()[0]) <= 100


@pytest.mark.parametrize(
    ("name", "steps"), [("stm", 125_000), ("objective", 125_000), ("saa", 125_000), ("ratio", 187_500)]
)
def test_slims_ablations_are_shorter_than_its_other_tables_at_the_papers_scale(name, steps):
    """Section 4.2: 150 epochs of 1,250 steps, ablations 100."""
    line = [f"ablation={name}", "scale=paper"]
    config = compose(line)
    lengths = {
        compose(of_cell(config, changes, [*line, "method=slim"])).train.length
        for changes in config.ablation.cells.values()
    }
    assert lengths == {f"{steps} steps"}
    shorter = compose(of_cell(config, next(iter(config.ablation.cells.values())), [*line, "train.length=5 steps"]))
    assert shorter.train.length == "5 steps", "the command line wins"
