"""The process that workers are forked from: it imports once what all of them need.

Commands start it before they import torch themselves, so that both import at the same time. Nothing but the standard
library may therefore be imported here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from multiprocessing import forkserver, resource_tracker

PRELOAD = ["sweeps.workers", "optuna", "omegaconf"]


def start_server() -> None:
    """Start it where it does not run; returns at once. It ends when no process of the command is left.

    An interruption by the terminal goes to all its processes, and this one would print where it was importing: it
    leaves SIGINT blocked, which each worker undoes (`open_to_interruption`).
    """
    resource_tracker.ensure_running()  # the server would start it, and that unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_early(line: Sequence[str]) -> None:
    """Start it where this command line is going to have several workers on this machine, as far as can be seen from
    it alone: where that is wrong, it was started for nothing, or is started later."""
    said = dict(word.partition("=")[::2] for word in line)
    workers = said.get("workers", "0")
    several = len(os.sched_getaffinity(0)) > 1 if workers == "0" else workers != "1"
    elsewhere = said.get("launcher", "local") != "local" or "TORCHELASTIC_RUN_ID" in os.environ
    if several and not elsewhere and said.get("dry", "false") == "false" and not {"-h", "--help"} & set(line):
        start_server()


def open_to_interruption() -> None:
    """In a worker: let SIGINT through again. One that came before raises `KeyboardInterrupt` here."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
