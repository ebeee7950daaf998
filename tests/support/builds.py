"""A build to come: this tree with a further column and further fields, each really used."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.databases import ROOT

SAID = "of the later build"
_PARTS = ("libs", "services", "protos")
_FIELD = 4_000  # a number that no message has
_MIGRATION = '''"""A column of the later build."""

import sqlalchemy as sa
from alembic import op

revision = "{next}"
down_revision = "{last}"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("later", sa.Text))
'''
# file, what is there once, and what comes after it.
_FIELDS = (
    ("enqueue/v1/messages.proto", "message Doorbell {\n"),
    ("enqueue/v1/messages.proto", "message JobEnqueued {\n"),
    ("enqueue/v1/messages.proto", "message JobEnded {\n"),
    ("enqueue/v1/execution.proto", "message ClaimJobResponse {\n"),
    ("enqueue/v1/execution.proto", "message RenewLeasesRequest {\n"),
    ("enqueue/v1/job.proto", "message JobEvent {\n"),
)
_USES = (
    ("enqueue/gateways.py", "bell = messages_pb2.Doorbell(\n"),
    ("enqueue/gateways.py", "enqueued = messages_pb2.JobEnqueued(\n"),
    ("enqueue/gateways.py", "ended = messages_pb2.JobEnded(\n"),
    ("enqueue/servicer/execution.py", "return execution_pb2.ClaimJobResponse(\n"),
    ("enqueue/servicer/convert.py", "job_pb2.JobEvent(\n"),
    ("worker/gateways/enqueue.py", "request = pb.RenewLeasesRequest(\n"),
)


@dataclass(frozen=True)
class Build:
    """A tree that services can be started from."""

    root: Path

    def environ(self) -> dict[str, str]:
        """For processes that are to run it."""
        return {"PYTHONPATH": f"{self.root}:{self.root / 'gen'}"}


def later_build(folder: Path) -> Build:
    """Makes it in a new folder: contract, generated code, tables, migration and their users."""
    for part in _PARTS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    for name, begin in _FIELDS:
        field = f"  // Of a version to come.\n  string later = {_FIELD};\n"
        _insert(folder / "protos" / "contentshop" / name, begin, field)
    _generate(folder)
    for name, begin in _USES:
        _insert(folder / "services" / name, begin, f"later={SAID!r},\n")
    column = f"sa.Column('later', sa.Text, default={SAID!r}),\n"
    _insert(folder / "services/enqueue/tables.py", '    "jobs",\n    metadata,\n', column)
    versions = folder / "services/enqueue/migrations/versions"
    last = max(path.name.partition("_")[0] for path in versions.glob("0*.py"))
    number = f"{int(last) + 1:04}"
    (versions / f"{number}_later.py").write_text(_MIGRATION.format(next=number, last=last))
    return Build(folder)


def _insert(path: Path, begin: str, what: str) -> None:
    text = path.read_text()
    assert text.count(begin) == 1, f"{path.name} has {begin!r} {text.count(begin)} times"
    path.write_text(text.replace(begin, begin + what))


def _generate(folder: Path) -> None:
    out = folder / "gen"
    out.mkdir()
    protos = folder / "protos"
    files = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}"]
    outs = [f"--python_out={out}", f"--grpc_python_out={out}"]
    subprocess.run([*protoc, *outs, *files], check=True)
