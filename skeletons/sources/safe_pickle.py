"""Pickles of arrays and plain containers, read without executing anything in them, large arrays left in the file.

A pickle is a program: it may name any function and call it. Here the only names it may use are those that NumPy's
arrays and Python's containers need, and each of them is a harmless stand-in of ours, so not even NumPy's own
reconstruction (which trusts sizes and flags) is called. Everything else is refused by name before it is looked up.

Bytes of `LARGE` or more are not read: `Values` remember where they lie. So a pickle of gigabytes opens in the
memory of its small parts, and its arrays can be read one by one, by several processes.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, NamedTuple

import numpy as np

from skeletons.errors import BadInput

LARGE = 4096  # bytes
# What pickle's machine trips over on bytes that are no pickle (NotImplementedError: its answer to unknown codes).
DAMAGED = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError),
    *(OverflowError, MemoryError, RecursionError, struct.error, NotImplementedError),
)


class Stored(NamedTuple):
    """Bytes that lie in the file: `size` from `offset`; as UTF-8 of Latin-1 text in protocols 0-2."""

    offset: int
    size: int
    text: bool


@dataclass(frozen=True)
class Values:
    """An array of the pickle: its bytes, or where they lie. `order` is C or F."""

    shape: tuple[int, ...]
    dtype: np.dtype
    data: bytes | Stored
    order: Literal["C", "F"]

    def read(self, file: BinaryIO) -> np.ndarray:
        """The array; `file` is the open pickle.

        Raises:
            ValueError: its bytes are not there, or not as many as they must be.
        """
        data = self.data
        if isinstance(data, Stored):
            file.seek(data.offset)
            raw = file.read(data.size)
            data = raw.decode().encode("latin-1") if data.text else raw
        return np.frombuffer(data, self.dtype).reshape(self.shape, order=self.order)


class _Inert:
    """What a pickle may name. State that it sets is refused unless a class below says what it means."""

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("sets state where there is none")


class _Type(_Inert):
    """`numpy.dtype(code, ...)`, then its state: version, byte order, and what only structured types have."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise pickle.UnpicklingError("has an array of a structured type")
        self.order = str(state[1])

    def found(self) -> np.dtype:
        """The type, where its values are numbers or text."""
        code = str(self.code)
        if self.order not in "<>=|" or not code.isalnum() or code[:1] not in "fiubU":
            raise pickle.UnpicklingError(f"has an array of type {self.order}{code[:20]}, which is no number or text")
        dtype = np.dtype(code)
        if dtype.kind not in "fiubU" or not dtype.itemsize:
            raise pickle.UnpicklingError(f"has an array of type {code[:20]}, which is no number or text")
        return (
            dtype.newbyteorder(">") if self.order == ">" else dtype
        )  # this machine and every format are little-endian


class Array(_Inert):
    """An array as it stands in a pickle: `_reconstruct(...)`, which says nothing, then its state."""

    values: Values

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("has an array without its state")
        _, shape, kind, columns_first, data = state
        self.values = _values(data, kind, shape, "F" if columns_first else "C")


def _values(data: object, kind: object, shape: object, order: object) -> Values:
    if not isinstance(kind, _Type) or not isinstance(data, (bytes, Stored)) or order not in ("C", "F"):
        raise pickle.UnpicklingError("has an array that is no array of numbers")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise pickle.UnpicklingError("has an array of no shape")
    dtype = kind.found()
    size = data.size if isinstance(data, Stored) else len(data)
    wanted = prod(shape) * dtype.itemsize
    if size < wanted or (size > wanted and not (isinstance(data, Stored) and data.text)):
        raise pickle.UnpicklingError(f"has an array of shape {shape} and {size} bytes instead of {wanted}")
    return Values(shape, dtype, data, "F" if order == "F" else "C")


class _Bytes(_Inert):
    """`_codecs.encode(text, "latin1")`, the bytes of protocols 0-2."""

    def __new__(cls, text: object, encoding: object = "latin1") -> Any:
        if isinstance(text, Stored) and text.text:
            return text
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError("has bytes in an unknown encoding")
        return text.encode("latin-1")


class _NoBytes(_Inert):
    """`bytes()`, the empty ones of protocols 0-2."""

    def __new__(cls) -> Any:
        return b""


class _Number(_Inert):
    """`numpy.core.multiarray.scalar(type, bytes)`: becomes a number or text of Python's."""

    def __new__(cls, kind: object, data: object) -> Any:
        values = _values(data, kind, (), "C")
        if isinstance(values.data, Stored):
            raise pickle.UnpicklingError("has a number of thousands of bytes")
        return np.frombuffer(values.data, values.dtype)[0].item()


class _Buffer(Array):
    """`numpy._core.numeric._frombuffer(bytes, type, shape, order)`, an array in protocol 5."""

    def __init__(self, data: object, kind: object, shape: object, order: object) -> None:
        self.values = _values(data, kind, shape, order)


class _Set(_Inert):
    def __new__(cls, values: object = ()) -> Any:
        if not isinstance(values, (list, tuple)):
            raise pickle.UnpicklingError("has a set of what is no list")
        return set(values)


class _Dict(_Inert):
    def __new__(cls, *values: object) -> Any:
        if values and not isinstance(values[0], list):
            raise pickle.UnpicklingError("has a dictionary of what is no list")
        # As many arguments as the pickle says: `dict` itself refuses what does not fit (a TypeError, see DAMAGED).
        return dict(*values)  # type: ignore[arg-type]


class _Kind(_Inert):
    """The class `numpy.ndarray`, which is named but never called."""

    def __new__(cls, *_: object) -> Any:
        raise pickle.UnpicklingError("calls numpy.ndarray")


ALLOWED: dict[tuple[str, str], type[_Inert]] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Kind,
    ("_codecs", "encode"): _Bytes,
    ("collections", "OrderedDict"): _Dict,
    **{(module, "bytes"): _NoBytes for module in ("builtins", "__builtin__")},
    **{(module, name): _Set for module in ("builtins", "__builtin__") for name in ("set", "frozenset")},
}
for core in ("numpy.core", "numpy._core"):  # NumPy 1's and 2's
    ALLOWED[f"{core}.multiarray", "_reconstruct"] = Array
    ALLOWED[f"{core}.multiarray", "scalar"] = _Number
    ALLOWED[f"{core}.numeric", "_frombuffer"] = _Buffer


class _Reader(pickle._Unpickler):  # Python's own, in Python: its memo cannot be blown up, and opcodes can be exchanged
    dispatch: ClassVar[dict[int, Callable]] = dict(pickle._Unpickler.dispatch)
    read: Callable[[int], bytes]
    append: Callable[[object], None]

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self.file, self.path = file, path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise BadInput(
                f"{self.path}: wants to use {module[:60]!r} {name[:60]!r}, and whoever loads that runs its code; only "
                "NumPy arrays, numbers, text, lists and dictionaries are read, so write the file again from those"
            )
        return ALLOWED[module, name]

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("uses copyreg's extensions")

    def _frame(self) -> None:
        self.read(8)  # frames only say how much to read ahead; without them, places in the file stay known

    def _bytes(self, width: str, text: bool) -> None:
        (size,) = struct.unpack(width, self.read(struct.calcsize(width)))
        if size < LARGE:
            data = self.read(size)
            self.append(data.decode("utf-8", "surrogatepass") if text else bytes(data))
            return
        self.append(Stored(self.file.tell(), size, text))
        self.file.seek(size, 1)

    dispatch[pickle.FRAME[0]] = _frame
    dispatch[pickle.BINBYTES[0]] = lambda self: self._bytes("<I", False)
    dispatch[pickle.BINBYTES8[0]] = lambda self: self._bytes("<Q", False)
    dispatch[pickle.BYTEARRAY8[0]] = lambda self: self._bytes("<Q", False)
    dispatch[pickle.BINUNICODE[0]] = lambda self: self._bytes("<I", True)
    dispatch[pickle.BINUNICODE8[0]] = lambda self: self._bytes("<Q", True)


def open_pickle(path: Path) -> Any:
    """What a pickle holds, its arrays as `Array`.

    Raises:
        BadInput: it cannot be read, is damaged, or names anything but arrays and containers.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file, path).load()
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise BadInput(f"{path}: is no pickle, or truncated or damaged ({reason}); fetch it again") from error
