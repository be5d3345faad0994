"""What the user gave us is wrong: one line that names the place and the remedy."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn


class BadInput(ValueError):
    """A file, a clip or a setting that cannot be used. Commands print it as one line and exit with status 2."""


def unknown(kind: str, given: str, known: Iterable[str]) -> BadInput:
    """`BadInput` for a name that does not exist, with the nearest known one.

    Args:
        kind: what the name stands for, e.g. "method".
        given: the name as the user wrote it.
        known: the names that exist.
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return BadInput(f"unknown {kind} {given!r}; {hint}known: {', '.join(names)}")


def optional(package: str, extra: str, wanted: str) -> Any:
    """A package that only an extra installs.

    Args:
        wanted: what needs it, e.g. "launcher=ray".

    Raises:
        BadInput: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BadInput(f"{wanted} needs {package}: pip install '.[{extra}]'") from error


def check_choices(section: str, config: object, **known: Iterable[str]) -> None:
    """Raise `BadInput` where a field of a configuration section is none of its known values.

    Args:
        known: field -> the values it may have.
    """
    for name, values in known.items():
        if getattr(config, name) not in values:
            raise unknown(f"{section}.{name}", str(getattr(config, name)), values)


def _end(number: int, frame: object) -> NoReturn:
    """What SIGTERM does: the same as the user's interruption, so that everything is put away."""
    raise KeyboardInterrupt("ended")


def command(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a script's `main` on its arguments and exit: with its status, with 2 and one line for bad input, with 130
    where the user interrupts and 143 where somebody ends it, quietly with 141 where nobody reads on (`... | head`)."""
    signal.signal(signal.SIGTERM, _end)
    try:
        sys.exit(main(sys.argv[1:]))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # no second one, while this one ends
        print(
            f"{str(error) or 'interrupted'}; the same command goes on where this one stopped",
            file=sys.stderr,
            flush=True,
        )
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        # At once: a worker's thread may be in the middle of a step, and would abort an orderly end.
        os._exit(143 if str(error) else 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains as it ends
        sys.exit(141)
