"""A command that is ended says so in one line, and exits with the status of what ended it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINE = "import os, signal, time; from skeletons.errors import command; "


@pytest.mark.parametrize(("sign", "status", "said"), [("SIGTERM", 143, "ended"), ("SIGINT", 130, "interrupted")])
def test_a_command_that_is_ended_says_that_it_goes_on(sign, status, said):
    setup = "signal.signal(signal.SIGINT, signal.default_int_handler); "
    ended = f"command(lambda a: os.kill(os.getpid(), signal.{sign}) or time.sleep(60))"
    done = subprocess.run([sys.executable, "-c", LINE + setup + ended], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr == f"{said}; the same command goes on where this one stopped\n"
