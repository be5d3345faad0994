"""The page in a real browser: Debian's Chromium, driven by playwright (from PyPI, without a browser of its own)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from reports.formats import Cell, Source, Table, rank_columns
from reports.page import Picture, Report, as_page
from tests.extras.conftest import absent

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
QUIET += ("--disable-component-update", "--disable-sync", "--disable-quic")


def plan_table(data: str, scale: str) -> Table:
    """As a plan's: two protocols, three cells, a hole, a floor."""
    tags = [{}, {}, {"kind": "published"}, {"protocol": "linear"}, {"protocol": "linear"}, {"protocol": "1-NN"}]
    values = {"dual": (63.0, 55.7), "no <global>": (64.6, 55.9), "limited": (9.9, 52.6)}
    rows: list[list[str | Cell]] = []
    for cell, (linear, near) in values.items():
        shown = [Cell(f"{v:.1f} ±3.9", v, source=cell) for v in (linear, near)]
        rows.append(
            [cell, "global tube, local limited, and more " * 2, Cell("87.7", 87.7), shown[0], "-1.6 ±3.5", shown[1]]
        )
    rows.append(["failed", "", "-", Cell("failed", missing="python sweeps/run.py retry=failed"), "", "-"])
    rows.append(["raw", "raw coordinates", "-", Cell("99.0", 99.0), "", "-"])
    columns = ["cell", "what differs", "published X-Sub", "linear xsub", "to dual", "1-NN xsub"]
    found = Table(f"stm-{data}", f"Masking on {data}", columns, rows, ["seeds [0]; " + "a long note " * 30], 4)
    found.tags, found.column_tags, found.section = {"data": data, "scale": scale}, tags, "Tables of SLiM"
    run = {"seed": 0, "value": 63.0, "run": "82e77dc072c1", "result": "afcf1ff1e206", "commit": "d2cc42e55d3f"}
    found.sources = {c: Source(f"{c}: linear", (run,), {"train.lr": 1e-4}, {"pooling": "mean"}, "run") for c in values}
    rank_columns(found, [3, 5])
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    import io

    from matplotlib.figure import Figure

    drawn = io.BytesIO()
    Figure(figsize=(11, 3)).savefig(drawn, dpi=100)
    tables = [plan_table("nwucla", "small"), plan_table("demo", "demo")]
    pictures = [
        Picture(f"{kind}-{t.name}", kind, drawn.getvalue(), (1100, 300), t.name) for t in tables for kind in "ab"
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(as_page(Report("SkelBench report", ["About " * 40, "/a/long/path" * 12], tables, pictures)))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if find_spec("playwright") is None or CHROMIUM is None:
        absent("chromium of Debian's packages, playwright from PyPI")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture(params=[(1280, 900, "light"), (390, 844, "dark")], ids=["desktop", "phone"])
def page(request, browser, file) -> Iterator:
    """Opened; in the end nothing was complained of and nothing was asked for but the file."""
    width, height, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    complaints, requests = [], []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda asked: requests.append(asked.url))
    opened.goto(file.as_uri())
    yield opened
    opened.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]


def cells(page) -> list[str]:
    return page.locator("#stm-nwucla tbody th").all_text_contents()


def test_it_opens_and_nothing_is_wider_than_the_window(page):
    assert page.title() == "SkelBench report"
    page.evaluate("for (const part of document.querySelectorAll('main details')) part.open = true")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = "[...document.querySelectorAll('main *')].filter(e => e.children.length === 0 && e.textContent.trim())"
    assert page.evaluate(f"Math.min(...{small}.map(e => parseFloat(getComputedStyle(e).fontSize)))") >= 9.5


def test_every_picture_loads(page):
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    assert page.evaluate("[...document.images].map(image => image.naturalWidth)") == [1100] * 4


def test_a_heading_sorts_and_floors_stay_below(page):
    before = cells(page)
    heading = page.locator("#stm-nwucla thead th", has_text="linear xsub")
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert cells(page) == ["no <global>", "dual", "limited", "failed", "raw"], "9.9 is less than 63; holes last"
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert cells(page) == ["limited", "dual", "no <global>", "failed", "raw"]
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") is None and cells(page) == before


def test_filters_by_data_and_protocol(page):
    page.select_option("select[name=data]", "demo")
    assert page.locator("article:visible h3").all_text_contents() == ["Masking on demo#"]
    assert page.locator("output").text_content() == "1 table"
    page.select_option("select[name=protocol]", "1-NN")
    heads = page.locator("#stm-demo thead th:visible").all_text_contents()
    assert heads == ["cell", "what differs", "published X-Sub", "1-NN xsub"]
    assert page.locator("#stm-demo tbody tr").first.locator("td:visible").count() == 3
    page.select_option("select[name=data]", "")
    assert page.locator("article:visible").count() == 2


def test_a_number_shows_where_it_comes_from_and_escape_closes(page):
    page.locator("#stm-nwucla button.n").first.click()
    panel = page.locator("#panel")
    said = panel.inner_text()
    assert "dual: linear" in said and "82e77dc072c1" in said and "python sweeps/runs.py show 82e77dc072c1" in said
    assert "train.lr" in said and "d2cc42e55d3f" in said
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("Escape")
    assert not panel.is_visible()
    page.locator("#stm-nwucla button.hole").click()
    assert "retry=failed" in panel.inner_text()
    panel.get_by_label("Close").click()
    assert not panel.is_visible()


def test_it_can_be_read_without_scripts(browser, file):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(file.as_uri())
    assert opened.locator("#stm-demo td:visible").count() == 25
    context.close()
