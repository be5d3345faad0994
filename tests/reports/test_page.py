"""The page: whole, well-formed, self-contained, and with the numbers of the tables."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
from html.parser import HTMLParser

import pytest

from reports.contents import guarded
from reports.formats import Cell, Source, Table, as_csv, rank_columns
from reports.make import main
from reports.page import Gap, Picture, Report, as_page
from skeletons.errors import BadInput
from sweeps.records import Records, write_json
from tests.reports.pictures import records as made_up

EVIL = "<img src=x onerror=alert(1)> \"&'</script> λ"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
VOID = {"meta", "link", "img", "br", "wbr"}


class Read(HTMLParser):
    """Elements in order, with what holds them; complains of what is not closed in turn."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes {self.open[-3:]}"

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.cells[-1][-1] += data
        if "script" in self.open:
            self.scripts[-1] += data


def table() -> Table:
    found = Table(
        "t-1",
        "Masking & more",
        ["cell", "what differs", "published X-Sub", "1-NN xsub", "to a"],
        [
            ["a", EVIL, Cell("87.7*", 87.7, source="paper"), Cell("63.0 ±3.9", 63.0, source="a"), ""],
            ["b", "κ", Cell("75.3", 75.3, source="paper"), Cell("70.1 ±2.0", 70.1, source="a"), Cell("-7.1 ±1", -7.1)],
            ["c", "", "-", Cell("missing", missing="python sweeps/run.py 'grid.a=<1>'"), ""],
            ["raw", "raw coordinates", "-", "99.0", "+3"],
        ],
        [f"note {EVIL}"],
        rule_before=3,
        section="Tables of SLiM",
        tags={"data": "demo", "scale": "small"},
        column_tags=[{}, {}, {"kind": "published"}, {"protocol": EVIL}, {"protocol": EVIL}],
    )
    run = {"seed": 0, "value": float("nan"), "run": "id", "result": "r", "commit": EVIL}
    found.sources = {
        "a": Source(EVIL, (run,), {"train.lr": 1e-4}, {"recipe": EVIL}, EVIL),
        "paper": Source("published"),
    }
    rank_columns(found, [2, 3])
    return found


@pytest.fixture(scope="module")
def page() -> str:
    other = Table("t-2", "Other", ["cell", "verdict"], [["x", "contradicted on demo"]], tags={"data": EVIL})
    picture = Picture("bars-t-1", f"Bars {EVIL}", PNG, (4, 3), "t-1")
    gaps = [Gap("Tables of SLiM", "Table 3", EVIL, "python sweeps/run.py ablation=semi")]
    return as_page(Report("T", [EVIL], [table(), other], [picture], gaps))


def test_it_is_well_formed_and_its_anchors_lead_somewhere(page):
    read = Read(page)
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in read.elements if tag == "a"]
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)
    assert all(attributes.get("alt") for tag, attributes in read.elements if tag == "img")


def test_no_request_leaves_the_file(page):
    for tag, attributes in Read(page).elements:
        assert not {"srcset", "action", "data", "poster"} & attributes.keys()
        assert (attributes.get("src") or "data:").startswith("data:"), tag
        assert (attributes.get("href") or "#").startswith(("#", "data:")), tag
    assert "default-src 'none'" in page, "and the browser would refuse it"
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|\bimport\b.*from", page)


def test_what_records_say_is_text_and_never_markup(page):
    read = Read(page)
    assert sum(tag == "img" for tag, _ in read.elements) == 1, "the picture, and nothing from a cell"
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)
    assert len(read.scripts) == 2
    sources = json.loads(read.scripts[0], parse_constant=pytest.fail)
    assert sources[0]["command"] == EVIL and sources[0]["runs"][0]["value"] == "nan"


def test_numbers_of_the_page_are_those_of_the_csv(page):
    plain = [[text.replace("−", "-").replace("–", "-") for text in row] for row in Read(page).cells]
    wanted = [row for row in csv.reader(io.StringIO(as_csv(table()))) if len(row) == 5]
    assert plain[: len(wanted)] == wanted


def test_best_and_second_are_marked_and_holes_say_what_fills_them(page):
    rows = re.findall(r"<tr.*?</tr>", page, re.S)
    assert 'class="r pub best"' in rows[1] and 'class="r new second"' in rows[1]
    assert 'class="r pub second"' in rows[2] and 'class="r new best"' in rows[2]
    assert 'data-missing="python sweeps/run.py &#x27;grid.a=&lt;1&gt;&#x27;"' in rows[3]
    assert "best" not in rows[4], "a floor has no place"
    assert page.count("<tbody>") == 3, "floors stay below the others when sorted"
    assert "✗" in page, "a verdict is not told by colour alone"
    assert "python sweeps/run.py ablation=semi" in page


def test_a_part_that_fails_leaves_a_line_and_the_others_stand():
    def broken() -> list[Table]:
        raise KeyError("labels")

    def refused() -> list[Table]:
        raise BadInput("no such thing; run this")

    assert list(guarded("S", "Table 6", broken)) == [Gap("S", "Table 6", "KeyError: 'labels'")]
    assert list(guarded("S", "Table 6", refused)) == [Gap("S", "Table 6", "no such thing; run this")]
    (found,) = guarded("S", "w", lambda: [Table("n", "t", ["a"], [["b"]])])
    assert isinstance(found, Table) and found.section == "S"


@pytest.fixture
def parts(monkeypatch):
    """Without FLOPs and settings, which take their time and have tests of their own, and with a picture that fails."""
    from reports import contents, drawn, figures

    monkeypatch.setattr(contents, "PARTS", {k: contents.PARTS[k] for k in ("tables", "not-run")})
    monkeypatch.setattr(drawn, "OF_CLIPS", {})
    monkeypatch.setattr(drawn, "ON_PAGE", {"confusion": "Confusion", "classes": "Broken", "embedding": "Map"})

    def broken(plan, records, wanted):
        raise ValueError("no picture today")

    def refused(plan, records, wanted):
        raise BadInput("not measured")

    monkeypatch.setitem(figures.FROM_RECORDS, "classes", broken)
    monkeypatch.setitem(figures.FROM_RECORDS, "embedding", refused)


def measured(folder) -> Records:
    """Made-up records, whole enough for a table."""
    found = made_up(folder)
    told = {"pooling": "mean", "recipe": "SGD", "selection": "last", "fingerprint": "f", "value": 50.0}
    for path in found.root.glob("*/eval/*/result.json"):
        write_json(path, json.loads(path.read_text()) | told)
    return found


def test_the_whole_report_is_one_command_and_damage_does_not_stop_it(tmp_path, capsys, parts):
    records = measured(tmp_path / "runs")
    plan = json.loads(records.plan_file("plan").read_text())
    unlike = {key: value for key, value in plan.items() if key != "differs"}
    write_json(records.plan_file("second"), unlike | {"name": "second", "ablation": "saa"})
    records.plan_file("third").write_text("{")
    write_json(records.plan_file("fourth"), {"works": 3})
    out = tmp_path / "out"
    assert main([f"runs={records.root}", f"out={out}"]) == 0
    said = capsys.readouterr().out
    assert said.rstrip().endswith(f"page: {out / 'report.html'}")
    assert "second" in said and "third.json: damaged" in said and "fourth.json: no plan" in said
    assert "classes of plan: ValueError: no picture today" in said
    page = (out / "report.html").read_text()
    Read(page)
    assert page.count("data:image/png") == 2 and 'id="confusion-plan"' in page and "no picture today" in page
    assert "ablation=objective" in page, "what nobody has run is there with its command"
    assert {"plan.txt", "plan.md", "plan.csv", "plan.tex", "not-run.tex"} <= {p.name for p in out.iterdir()}
    kept = {p: p.stat().st_mtime_ns for p in (out / "pictures").iterdir()}
    assert main([f"runs={records.root}", f"out={out}", "plan=plan"]) == 0
    assert "page: " in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (out / "pictures").iterdir()} == kept, "nothing is drawn twice"


def test_without_any_run_the_page_says_what_to_run(tmp_path, capsys, parts):
    out = tmp_path / "out"
    assert main([f"runs={tmp_path / 'none'}", f"out={out}"]) == 0
    assert "ablation=stm" in (out / "report.html").read_text()
    with pytest.raises(BadInput, match="no plan for data=nwucla"):
        main([f"runs={tmp_path / 'none'}", "data=nwucla"])


def test_a_number_knows_its_runs(tmp_path):
    from reports.tables import ablation_table

    records = measured(tmp_path / "runs")
    hashed = {"method": "slim", "fields": {"train": {"batch": 32}}, "versions": {"a": 1}}
    about = {"commit": "c", "dirty": False, "machine": "m", "torch": "2", "seconds": 1.0, "clips_per_second": 9.0}
    write_json(records.run("slim0") / "run.json", {"hashed": hashed} | about)
    told = {"pretraining": "slim0", "identity": "l", "seed": 0, "commit": "c1", "dirty": True, "finished": "today"}
    for name in ("slim0", "slim1", "untrained0", "untrained1"):
        path = records.result_file(name, "l")
        write_json(path, json.loads(path.read_text()) | told | {"pretraining": name, "seed": int(name[-1])})
    plan = json.loads(records.plan_file("plan").read_text())
    for work in plan["works"]:
        work["judgements"] = {k: v for k, v in work["judgements"].items() if k == "linear"}
    found = ablation_table(plan, records)
    cell = next(row for row in found.rows if row[0] == "slim")[-2]
    source = found.sources[cell.source]
    assert [run["seed"] for run in source.runs] == [0, 1] and source.runs[0]["run"] == "slim0"
    assert source.runs[0]["commit"] == "c1+changes" and source.runs[0]["date"] == "today"
    assert source.settings == {"method.name": "slim", "train.batch": 32}
    assert source.command == plan["command"] and "bootstrap" in source.facts["95 % interval"]
    assert sum(run["value"] for run in source.runs) / 2 == pytest.approx(cell.value, abs=0.01)


def test_pictures_of_clips_stand_on_the_page_without_a_table(tmp_path, monkeypatch):
    from reports import drawn

    monkeypatch.setattr(drawn, "ON_PAGE", {})
    monkeypatch.setattr(drawn, "OF_CLIPS", {"augment": "Augmentations"})
    plans = [{"name": "a", "data": "demo", "works": []}, {"name": "b", "data": "no such data", "works": []}]
    (found,), gaps = drawn.Drawing(plans, Records(tmp_path / "runs"), tmp_path).finished()
    assert (found.name, found.title, found.table) == ("augment-demo", "Augmentations: demo", "")
    (gap,) = gaps
    assert gap.what == "augment of no such data" and "unknown data" in gap.why
    assert found.content[1:4] == b"PNG" and found.size[0] > found.size[1] / 4 > 50


def test_a_drawer_that_is_killed_leaves_a_line_and_the_page(tmp_path, monkeypatch):
    from reports import drawn

    monkeypatch.setattr(drawn, "FEW", 0)
    monkeypatch.setattr(drawn, "ON_PAGE", {})
    monkeypatch.setattr(drawn, "OF_CLIPS", {"augment": "Augmentations"})
    monkeypatch.setattr(drawn, "_draw", killed)
    plans = [{"name": "a", "data": "demo", "works": []}]
    with drawn.Drawing(plans, Records(tmp_path / "runs"), tmp_path) as drawing:
        found, (gap,) = drawing.finished()
    assert not found and "a process that draws was killed" in gap.why


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_pictures_of_another_page_stay_and_those_of_older_records_go(tmp_path, monkeypatch):
    from reports import drawn

    monkeypatch.setattr(drawn, "ON_PAGE", {"curves": "Training curves"})
    monkeypatch.setattr(drawn, "OF_CLIPS", {})
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("curves-a-0123456789ab.png", "curves-b-0123456789ab.png", "curves-a-b-0123456789ab.png"):
        (folder / name).touch()
    drawn.Drawing([{"name": "a", "data": "demo", "works": []}], Records(tmp_path / "runs"), tmp_path).finished()
    there = {path.name for path in folder.iterdir()}
    assert there == {"curves-b-0123456789ab.png", "curves-a-b-0123456789ab.png"}
