"""The house's own rules: imports run against the arrow, and training needs neither MLflow nor Optuna nor Hydra."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "skeletons": set(),
    "methods": {"skeletons"},
    "protocols": {"skeletons", "methods"},
    "sweeps": {"skeletons", "methods", "protocols"},
    "reports": {"skeletons", "methods", "sweeps"},
}


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_against_the_arrow(room):
    for path in (ROOT / room).rglob("*.py"):
        strangers = imported(path) & MAY_IMPORT.keys() - MAY_IMPORT[room] - {room}
        assert not strangers, f"{path.relative_to(ROOT)} imports {strangers}"


def test_no_method_is_named_in_the_trainer():
    from methods.base import all_methods

    text = (ROOT / "methods" / "trainer.py").read_text()
    code = ast.dump(ast.parse(text))
    assert not [name for name in all_methods() if f"'{name}'" in code]


def test_training_and_evaluation_run_where_only_torch_is():
    """Import every file of the three lower rooms with the sweep's packages made impossible to import."""
    script = """
import importlib, pkgutil, sys
for name in ("mlflow", "optuna", "hydra", "omegaconf", "pandas", "sklearn", "matplotlib", "seaborn", "scipy", "rich"):
    sys.modules[name] = None
for room in ("skeletons", "methods", "protocols"):
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, room + "."):
        importlib.import_module(module.name)
print("all imported")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "all imported\n", done.stderr


def test_no_file_beside_a_script_hides_a_module_of_pythons_own():
    """A script's folder comes first on its module path: a `queue.py` there would be everybody's `queue`."""
    for room in ("sweeps", "reports"):
        assert not {path.stem for path in (ROOT / room).glob("*.py")} & sys.stdlib_module_names
