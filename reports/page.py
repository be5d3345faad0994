"""The page: all tables, pictures and where each number comes from, in one file that opens without a server and asks
nothing of any. Its look is in page.css, what it does on a click in page.js; without scripts it is still a page to read.

Everything that comes from records, plans and configurations is escaped.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from reports.formats import RANKED, Cell, Table, as_cell, is_ranked, right_aligned

HERE = Path(__file__).resolve().parent
FILTERS = {"data": "Data", "scale": "Scale", "protocol": "Protocol"}
WRAPS = 22  # characters from which the text of a cell may wrap
SIGNS = {
    "reproduced": ("good", "✓"),
    "contradicted": ("bad", "✗"),
    "not decided": ("open", "?"),
    "not tested": ("open", "·"),
}
SIGNED, NUMBER = re.compile(r"[-+]\d"), re.compile(r"[-+]?[\d,]*\.?\d+")
SPREAD = re.compile(r"(?P<mean>.*\d) (?P<half>±[\d.]+†?)")


@dataclass(frozen=True)
class Picture:
    """A picture on the page.

    Attributes:
        name: of its anchor.
        title: what it shows, in a few words.
        content: bytes of a PNG or GIF.
        size: width and height in pixels.
        table: name of the table below which it stands.
    """

    name: str
    title: str
    content: bytes
    size: tuple[int, int]
    table: str = ""


@dataclass(frozen=True)
class Gap:
    """What could not be shown: why, and the command that would fill it."""

    section: str
    what: str
    why: str
    command: str = ""


@dataclass
class Report:
    """Everything on the page, in its order."""

    title: str
    about: list[str]
    tables: list[Table]
    pictures: list[Picture] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


def as_page(report: Report) -> str:
    """HTML, whole."""
    sources: list[dict] = []
    sections = dict.fromkeys([*(t.section for t in report.tables), *(g.section for g in report.gaps)])
    if _alone(report):
        sections["Pictures"] = None
    shown = "\n".join(_section(name, report, sources) for name in sections)
    parts = {
        "title": escape(report.title),
        "about": "\n".join(f"<p{' class=made' if i else ''}>{escape(line)}</p>" for i, line in enumerate(report.about)),
        "filters": _filters(report.tables),
        "contents": "\n".join(_contents(name, report, _common(report.tables)) for name in sections),
        "sections": shown,
        "sources": _json(sources),
        "css": (HERE / "page.css").read_text(),
        "js": (HERE / "page.js").read_text(),
    }
    # In one pass, so that no part is searched for another's mark.
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], (HERE / "page.html").read_text())


def _json(content: object) -> str:
    """JSON that cannot end the script that holds it."""
    text = json.dumps(_finite(content), default=str, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(content: Any) -> Any:
    """NaN and infinity as text: JSON has no word for them, and a browser would refuse all of it."""
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return str(content) if isinstance(content, float) and not math.isfinite(content) else content


def anchor(name: str) -> str:
    """An id that can stand in an address."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-") or "table"


def _tags(tags: dict[str, str]) -> str:
    return f' data-tags="{escape(json.dumps(tags))}"' if tags else ""


def _filters(tables: Iterable[Table]) -> str:
    """A choice for each kind of tag that has more than one value."""
    choices: dict[str, dict[str, None]] = {key: {} for key in FILTERS}
    for table in tables:
        for tags in (table.tags, *table.column_tags, *table.row_tags):
            for key in FILTERS.keys() & tags.keys():
                choices[key][tags[key]] = None
    found = []
    for key, values in choices.items():
        options = "".join(f"<option>{escape(value)}</option>" for value in sorted(values))
        chooser = f'<select name="{key}"><option value="">all</option>{options}</select>'
        found.append(f"<label{'' if len(values) > 1 else ' hidden'}>{FILTERS[key]} {chooser}</label>")
    return f'<form class="filters" aria-label="What to show">{"".join(found)}<output name="shown"></output></form>'


def _contents(section: str, report: Report, common: dict[str, str]) -> str:
    entries = []
    for table in report.tables:
        if table.section == section:
            label = f"{escape(table.label)}: " if table.label else ""
            told = _where(table, common)
            where = f" <small>{escape(told)}</small>" if told and told not in table.title else ""
            entries.append(f'<li><a href="#{anchor(table.name)}">{label}{escape(table.title)}</a>{where}</li>')
    return f'<h2><a href="#{anchor(section)}">{escape(section)}</a></h2>\n<ul>{"".join(entries)}</ul>'


def _common(tables: Iterable[Table]) -> dict[str, str]:
    """What is the same in all tables of data."""
    tags = [table.tags for table in tables if "data" in table.tags]
    return {key: value for key, value in tags[0].items() if all(t.get(key) == value for t in tags)} if tags else {}


def _where(table: Table, known: dict[str, str] | None = None) -> str:
    """What was measured on, in short, but for what is known."""
    words = {"data": "{}", "scale": "scale {}", "setting": "setting {}", "stream": "{} stream"}
    usual = {"stream": "joint"} | (known or {})
    return ", ".join(words[k].format(v) for k, v in table.tags.items() if k in words and usual.get(k) != v)


def _alone(report: Report) -> list[Picture]:
    """Pictures whose table is not there, or that have none."""
    there = {table.name for table in report.tables}
    return [picture for picture in report.pictures if picture.table not in there]


def _section(name: str, report: Report, sources: list[dict]) -> str:
    own = [_article(t, report.pictures, sources) for t in report.tables if t.section == name]
    if name == "Pictures" and (alone := "".join(_figure(p, p.table) for p in _alone(report))):
        own.append(f'<article><div class="pictures">{alone}</div></article>')
    own += [f"<article>{_gap(gap)}</article>" for gap in report.gaps if gap.section == name]
    return f'<section id="{anchor(name)}">\n<h2>{escape(name)}</h2>\n{"".join(own)}</section>'


def _gap(gap: Gap) -> str:
    remedy = f"<br>To fill it: <code>{escape(gap.command)}</code>" if gap.command else ""
    return f'<p class="why"><b>{escape(gap.what)}</b>: {escape(gap.why)}{remedy}</p>\n'


def _article(table: Table, pictures: Sequence[Picture], sources: list[dict]) -> str:
    """A table with its heading, legend and pictures."""
    name = anchor(table.name)
    label = f'<span class="label">{escape(table.label)}</span>' if table.label else ""
    link = f'<a class="anchor" href="#{name}" aria-label="Link to this table">#</a>'
    told = _where(table)
    where = f'<p class="where">{escape(told)}</p>' if told and told not in table.title else ""
    notes = [*table.notes, *([RANKED] if is_ranked(table) else [])]
    legend = "".join(f"<li>{escape(note)}</li>" for note in notes)
    files = f"<li>as text, Markdown, CSV and LaTeX: {escape(table.name)}.{{txt,md,csv,tex}} beside this page</li>"
    own = [picture for picture in pictures if picture.table == table.name]
    shown = "".join(_figure(picture, is_open=i == 0) for i, picture in enumerate(own))
    return (
        f'<article id="{name}"{_tags(table.tags)}>\n<h3>{label}{escape(table.title)}{link}</h3>\n{where}\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f"{_table(table, sources)}</div>\n"
        f'<details class="legend"><summary>How these numbers were made</summary><ul>{legend}{files}</ul></details>\n'
        + (f'<div class="pictures">{shown}</div>\n' if shown else "")
        + "</article>\n"
    )


def _table(table: Table, sources: list[dict]) -> str:
    places = {}  # key of a source -> its place among all
    for key, source in table.sources.items():
        places[key] = len(sources)
        sources.append(asdict(source))
    column_tags = table.column_tags or [{}] * len(table.columns)
    kinds = _kinds(table, column_tags)
    head = "".join(
        f'<th scope="col" class="{kind}"{_tags(tags)}><button type="button">{escape(title)}</button></th>'
        for title, kind, tags in zip(table.columns, kinds, column_tags, strict=True)
    )
    rows = [
        f"<tr{_tags(tags)}>" + "".join(_cell(as_cell(c), i, kinds[i], places) for i, c in enumerate(row)) + "</tr>"
        for row, tags in zip(table.rows, table.row_tags or [{}] * len(table.rows), strict=True)
    ]
    rule = len(rows) if table.rule_before is None else table.rule_before
    bodies = "".join("<tbody>\n" + "\n".join(part) + "\n</tbody>" for part in (rows[:rule], rows[rule:]) if part)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n{bodies}\n</table>"


def _kinds(table: Table, column_tags: Sequence[dict[str, str]]) -> list[str]:
    """Classes of each column: r numbers, t text; pub what was published, new where what was measured begins."""
    published = [tags.get("kind") == "published" for tags in column_tags]
    return [
        ("r" if right_aligned(table, i) else "t")
        + (" pub" if published[i] else " new" if i and published[i - 1] else "")
        for i in range(len(table.columns))
    ]


def _cell(cell: Cell, column: int, kind: str, places: dict[str, int]) -> str:
    """Markup of one cell: a number is a button that shows where it comes from, a hole one that shows what fills it."""
    text, right = escape(cell.text), kind.startswith("r")
    if verdict := next((word for word in SIGNS if cell.text.startswith(word)), None):
        colour, sign = SIGNS[verdict]
        text = f'<span class="{colour}"><span aria-hidden="true">{sign}</span> {text}</span>'
    elif spread := SPREAD.fullmatch(cell.text):
        text = f"{escape(spread['mean'])} <i>{spread['half']}</i>"
    text = re.sub(r"^-(?=\d)", "−", text) if right else text  # as wide as a plus
    if cell.missing:
        text = f'<button type="button" class="hole" data-missing="{escape(cell.missing)}">{text}</button>'
    elif cell.source in places:
        text = f'<button type="button" class="n" data-source="{places[cell.source]}">{text}</button>'
    elif cell.text == "-":
        text = '<span class="gap">–</span>'
    else:
        text = f'<span class="n">{text}</span>' if cell.rank else text
    kind += f" {('best', 'second')[cell.rank - 1]}" if cell.rank else ""
    kind += " diff" if right and SIGNED.match(cell.text) else ""
    kind += " long" if len(cell.text) > 2 * WRAPS else " mid" if len(cell.text) > WRAPS and column else ""
    value = cell.value
    if value is None and right and NUMBER.fullmatch(cell.text):
        value = float(cell.text.replace(",", ""))
    known = f' data-value="{value:.6g}"' if value is not None and math.isfinite(value) else ""
    return (
        f'<th scope="row" class="{kind}"{known}>{text}</th>' if not column else f'<td class="{kind}"{known}>{text}</td>'
    )


def _figure(picture: Picture, of: str = "", is_open: bool = False) -> str:
    kind = "gif" if picture.content[:3] == b"GIF" else "png"
    data = base64.b64encode(picture.content).decode()
    width, height = picture.size
    name, title = anchor(picture.name), escape(picture.title + (f": {of}" if of else ""))
    return (
        f'<details id="{name}"{" open" if is_open else ""}><summary>{title}</summary>'
        f'<figure><img alt="{title}" width="{width}" height="{height}" decoding="async" '
        f'src="data:image/{kind};base64,{data}"></figure></details>\n'
    )
