"""The audit is quiet without a defect, and says what it found in one page and by its exit status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from skeletons import audit
from skeletons.errors import BadInput
from skeletons.findings import OK
from skeletons.sources import DataConfig, open_clips
from tests.skeletons.planted import Arrays, a_pair, added, rows


def test_people_without_defects_are_found_to_have_none(found, people):
    told = found(people)
    assert {f.status for f in told.values()} == {OK}, [f for f in told.values() if f.status != OK]
    assert len(told) >= 18


@pytest.fixture
def line(tmp_path, monkeypatch) -> Callable[[Arrays], list[str]]:
    """The command's arguments for arrays on file."""
    monkeypatch.setenv("SKELBENCH_CACHE", str(tmp_path / "cache"))

    def write(arrays: Arrays) -> list[str]:
        path = tmp_path / f"data{len(list(tmp_path.iterdir()))}.npz"
        np.savez(path, **arrays)
        return ["data=archive", f"data.file={path}"]

    return write


def test_exit_status_page_and_verdict(line, people, capsys):
    train, test = a_pair(people)
    clean = line(people)
    assert audit.main(clean) == 0
    printed = capsys.readouterr().out
    assert "no split leaks" in printed and "xsub" in printed and "xview" not in printed
    leaky = line(added(people, people["joints"][rows(people, train)], test))
    assert audit.main(leaky) == 1
    printed = capsys.readouterr().out
    assert "LEAKS: xsub" in printed and f"planted = {people['clip'][train]}" in printed
    assert len(printed.splitlines()) <= 60
    assert max(len(line) for line in printed.splitlines() if "/" not in line) <= audit.WIDTH
    clips = open_clips(DataConfig(name="archive", file=leaky[1].partition("=")[2]))
    assert audit.verdict_on(clips, "xsub") == "1 of 25 test clips have an identical training clip"
    assert audit.verdict_on(clips, "subject:odd") is None
    assert audit.main([*leaky, "split=subject:even"]) == 1
    assert audit.verdict_on(clips, "subject:even") is not None and audit.verdict_on(clips, "xsub") is not None
    assert audit.verdict_on(replace(clips, fingerprint="other"), "xsub") is None


def test_a_verdict_of_other_checks_is_forgotten(line, people, monkeypatch):
    given = line(people)
    audit.main(given)
    clips = open_clips(DataConfig(name="archive", file=given[1].partition("=")[2]))
    assert audit.verdict_on(clips, "xsub") == "no test clip is a training clip"
    monkeypatch.setattr(audit, "VERSION", audit.VERSION + 1)
    assert audit.verdict_on(clips, "xsub") is None


def test_a_store_that_cannot_be_written_is_audited_all_the_same(stored, people, monkeypatch):
    clips = stored(people)
    loose = replace(clips, frames=np.array(clips.frames))
    assert "in no store" in audit.keep(loose, [], {}) and audit.verdict_on(loose, "xsub") is None

    def refuse(path):
        raise BadInput(f"{path}: the disk is full")

    monkeypatch.setattr(audit, "written_whole", refuse)
    assert "the disk is full" in audit.keep(clips, [], {})


def test_many_splits_share_lines(line, people, capsys):
    people["fold"] = np.arange(len(people["label"])) % 12
    del people["train_xsub"]
    audit.main(line(people))
    printed = capsys.readouterr().out
    assert "split fold:11" in printed and "fold:0 and 11 like it" in printed and len(printed.splitlines()) <= 60


def test_a_split_without_test_clips_is_named(found, line, people, capsys):
    people["train_all"] = np.ones(len(people["label"]), bool)
    assert audit.main(line(people)) == 0
    assert "split 'all' has no test clips" in capsys.readouterr().out.replace("\n" + " " * 27, " ")


@pytest.mark.parametrize(
    "wrong, said",
    [
        (["dta=demo"], "did you mean 'data'"),
        (["split=xsub"], "say which data"),
        (["data="], "write data=VALUE"),
        (["data=nobody"], "unknown data"),
        (["data=demo", "data.fil=x"], "did you mean 'data.file'"),
        (["data=archive", "data.file=/nowhere.npz"], "no such file"),
    ],
)
def test_bad_arguments_are_refused(wrong, said):
    with pytest.raises(BadInput, match=said):
        audit.main(wrong)


def test_the_command_exits_with_2_on_bad_input(tmp_path):
    import subprocess
    import sys

    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    line = [sys.executable, "-m", "skeletons.audit", "data=archive", f"data.file={tmp_path / 'cut.npz'}"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2 and "truncated" in done.stderr and not done.stdout


def test_nwucla_leaks_95_clips(shared_data, capsys):
    assert audit.main(["data=nwucla", f"data.root={shared_data}"]) == 1
    assert "95 of 464 test clips have an identical training clip (20.5 %" in capsys.readouterr().out
    clips = open_clips(DataConfig(name="nwucla", root=str(shared_data)))
    told = replace(clips, table={k: v for k, v in clips.table.items() if k != "test_identical_to_train"})
    leak = audit.audit(told, "xview")[0][0]
    marked = clips.table["clip"][clips.table["test_identical_to_train"]]
    assert {name.partition(" = ")[0] for name in leak.names} == set(marked) and leak.count == 95


@pytest.mark.parametrize("name", ["irds", "utdmhad", "sbu"])
def test_the_other_sets_do_not_leak(shared_data, name):
    clips = open_clips(DataConfig(name=name, root=str(shared_data)))
    assert not any(v.leaks for v in audit.audit(clips)[1].values())
