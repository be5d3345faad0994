"""Every table compiles: Debian's texlive-latex-base and texlive-latex-recommended (booktabs)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from reports.formats import as_latex
from reports.make import main
from tests.extras.conftest import absent
from tests.reports.pictures import records
from tests.reports.test_golden import table

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""


@pytest.fixture(autouse=True)
def pdflatex() -> None:
    if not shutil.which("pdflatex"):
        absent("pdflatex of Debian's packages texlive-latex-base, texlive-latex-recommended")


def compiled(folder: Path, *texts: str) -> str:
    """Log of a document of these tables; it must compile without an error."""
    (folder / "all.tex").write_text(DOCUMENT % "\n\\clearpage\n".join(texts))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "all.log").read_text(errors="replace")


def test_a_table_of_all_that_is_special_in_latex_compiles(tmp_path):
    log = compiled(tmp_path, as_latex(table()))
    assert "LaTeX Warning: Command" not in log and "Missing character" not in log


def test_every_table_of_a_report_compiles(tmp_path):
    made_up = records(tmp_path / "runs")
    assert main([f"runs={made_up.root}", f"out={tmp_path / 'out'}"]) == 0
    texts = [path.read_text() for path in sorted((tmp_path / "out").glob("*.tex"))]
    assert texts
    compiled(tmp_path, *texts)
