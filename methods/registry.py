"""Files that register what they define, when they are imported: methods, kinds of encoders, masking strategies.

A new file needs no list to be added to.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache


@cache
def import_files(package: str) -> None:
    """Import every file of a package, once."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
