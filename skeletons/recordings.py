"""What a source of recordings gives: one `Recording` a clip, read item by item, so that many can be read at once."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from skeletons.topology import Topology


@dataclass(frozen=True)
class Recording:
    """One clip as its source has it.

    Attributes:
        name: the recording's own, distinct.
        joints: float32 (frame, person, joint, 3), metres, y up; exact zeros where a joint was not seen or nobody is
            there.
        label: class, from 0.
        columns: subject, camera, setup, repetition, ...: integers for the table.
        notes: what was repaired or decided on the way, a few words each ("3 bodies: kept the 2 that move most").
        tracking: uint8 (frame, person, joint), the sensor's own confidence (0 none, 1 inferred, 2 tracked), where it
            gives one.
    """

    name: str
    joints: np.ndarray
    label: int
    columns: dict[str, int]
    notes: tuple[str, ...] = ()
    tracking: np.ndarray | None = None


class LeftOut(Exception):
    """A recording that is rightly not used, e.g. on the missing-skeleton list; says why."""


SOURCES: dict[str, type[Source]] = {}


class Source(ABC):
    """Files of one kind. Registered by `name` (class attribute) when its file in skeletons/sources/ is imported.

    Args:
        raw: folder (or file) of the recordings.
        options: the source's own choices, a dataclass `Options` with defaults (each documented).
    """

    name: ClassVar[str]
    Options: ClassVar[type]
    version: ClassVar[int] = 1  # bump when `read` gives other values for the same file
    official: ClassVar[dict[str, tuple[int, int]]] = {}  # split -> published numbers of training and test clips
    topology: Topology  # may be found when it is made
    class_names: tuple[str, ...]
    fps: float
    chiral: tuple[tuple[str, str], ...] = ()

    def __init__(self, raw: Path, options: Any):
        self.raw, self.options = raw, options

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            SOURCES[cls.name] = cls

    @abstractmethod
    def items(self) -> list[Any]:
        """What there is to read, in a fixed order; small and picklable (a path, or (path, index))."""

    @abstractmethod
    def read(self, item: Any) -> Recording | list[Recording]:
        """Read one item (a file may hold several clips). Raises BadInput (file, line, remedy) for what is damaged,
        LeftOut for what is rightly left out."""

    def splits(self, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """bool (clip) columns train_NAME from the table's columns and clip names: the official splits of this set."""
        return {}


def all_sources() -> dict[str, type[Source]]:
    """Every source by name: each file of skeletons/sources is imported, so a new one needs no list to be added to."""
    from skeletons import sources

    for module in pkgutil.iter_modules(sources.__path__):
        if not module.name.startswith("demo"):  # generated, not recorded
            importlib.import_module(f"{sources.__name__}.{module.name}")
    return SOURCES
