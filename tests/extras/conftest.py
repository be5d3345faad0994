"""What `make test-extras` installs, and servers of it: on loopback, in folders of their own, gone when the tests end.

Where something is missing its tests are skipped; with EXTRAS_REQUIRED=1, which `make test-extras` sets, they fail.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sweeps.conftest import archive, tiny  # noqa: F401  (fixtures)


def absent(what: str) -> None:
    """Skip the test for want of something, or fail where that was to be installed."""
    if os.environ.get("EXTRAS_REQUIRED") == "1":
        pytest.fail(f"{what}: make test-extras should have installed it")
    pytest.skip(what)


def free_port() -> int:
    """A port of the loopback interface that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something is ready, or fail."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not ready after {seconds:.0f} s"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a PostgreSQL server with an empty database."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not binaries:
        absent("PostgreSQL's server is not in /usr/lib/postgresql (Debian's package postgresql)")
    pytest.importorskip("psycopg") if os.environ.get("EXTRAS_REQUIRED") != "1" else __import__("psycopg")
    folder, port = Path(tempfile.mkdtemp(prefix="skelbench-postgres-")), free_port()  # pytest's own are for root alone
    user = [] if os.geteuid() else ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    if user:
        os.chown(folder, pwd.getpwnam("postgres").pw_uid, pwd.getpwnam("postgres").pw_gid)
    here = binaries[-1].parent
    made = [*user, here / "initdb", "-D", folder / "data", "-A", "trust", "-U", "skelbench", "--no-sync"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd="/")
    settings = ("listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={folder}", "fsync=off")
    line = [*user, here / "postgres", "-D", folder / "data", *(w for s in settings for w in ("-c", s))]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(line, stdout=log, stderr=log, cwd="/")
    asked = [here / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    try:
        until(lambda: subprocess.run(asked).returncode == 0, 60, "PostgreSQL")
        yield f"postgresql://skelbench@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


SLURM = """ClusterName=skelbench
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """A Slurm of one node: this machine. Skipped where it does not start, for want of rights, say."""
    for program in ("munged", "slurmctld", "slurmd"):
        if shutil.which(program, path="/usr/sbin") is None:
            absent(f"{program} of Debian's packages munge, slurmctld, slurmd")
    if os.geteuid():
        pytest.skip("slurmd must be started by root")
    folder = Path(tempfile.mkdtemp(prefix="skelbench-slurm-"))
    folder.chmod(0o755)
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o600)
    ports, cores = (free_port(), free_port()), len(os.sched_getaffinity(0))
    config = SLURM.format(host=socket.gethostname(), folder=folder, ports=ports, cores=cores)
    (folder / "slurm.conf").write_text(config)
    munge = [
        "/usr/sbin/munged",
        "--foreground",
        "--force",
        f"--key-file={folder}/key",
        f"--socket={folder}/munge.socket",
    ]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    line = ["-D", "-f", str(folder / "slurm.conf")]
    started = []
    with pytest.MonkeyPatch.context() as patch, open(folder / "log", "w") as log:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            for program in (munge, ["/usr/sbin/slurmctld", *line], ["/usr/sbin/slurmd", *line]):
                started.append(subprocess.Popen(program, stdout=log, stderr=log))
                time.sleep(1)
            asked = ["sinfo", "--noheader", "--format=%T"]
            try:
                until(lambda: "idle" in subprocess.run(asked, capture_output=True, text=True).stdout, 60, "Slurm")
            except AssertionError:
                pytest.skip(f"Slurm does not start here: {(folder / 'log').read_text()[-500:]}")
            yield
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(30)
            shutil.rmtree(folder, ignore_errors=True)
