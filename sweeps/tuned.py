"""What tuning found, as a YAML that `run.py tuned=PATH` takes: overrides, and where they come from.

The file's overrides stand where the command line's stand, before them: what the command line says wins over them, a
whole section too (`augment=none` puts aside what was found for `augment.*`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skeletons.errors import BadInput
from sweeps.groups import GROUPS
from sweeps.records import write_text

KEY = "tuned"


def read_tuned(path: Path) -> dict[str, Any]:
    """The file's `overrides` and what is said of how they were `found`.

    Raises:
        BadInput: there is no such file, or it is another kind of file.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file; `python sweeps/tune.py` writes one") from error
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path}: no YAML ({' '.join(str(error).split())[:120]})") from error
    overrides = tree.get("overrides") if isinstance(tree, dict) else None
    if not isinstance(overrides, list) or not all(isinstance(o, str) and "=" in o for o in overrides):
        raise BadInput(f"{path}: not a file that sweeps/tune.py wrote: it needs `overrides:`, a list of KEY=VALUE")
    assert isinstance(tree, dict)
    return {"overrides": overrides, "found": tree.get("found") or {}}


def write_tuned(path: Path, overrides: Sequence[str], found: dict[str, Any]) -> None:
    """Write such a file."""
    from omegaconf import OmegaConf

    head = "# Found by sweeps/tune.py on withheld training subjects; the test split was not read. To use it:\n"
    content = OmegaConf.to_yaml(OmegaConf.create({"overrides": list(overrides), "found": found}))
    write_text(path, f"{head}#   python sweeps/run.py {KEY}={path}\n{content}")


def with_tuned(overrides: Sequence[str]) -> list[str]:
    """The command line, with the overrides of the file that `tuned=PATH` names before its own, where it has none for
    the same key or the whole section."""
    paths = [o.partition("=")[2] for o in overrides if o.startswith(f"{KEY}=")]
    if not paths:
        return list(overrides)
    said = {o.removeprefix("grid.").partition("=")[0].lstrip("+~") for o in overrides}
    sections = said & set(GROUPS)

    def stays(override: str) -> bool:
        key = override.partition("=")[0]
        return key not in said and key.partition(".")[0] not in sections

    return [*filter(stays, read_tuned(Path(paths[-1]))["overrides"]), *overrides]
