"""What deploy/compose/make-secrets.sh makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.databases import ROOT


def make_secrets(root: Path) -> Path:
    """The folder of secrets, made in a copy of the tree; made twice, for that changes nothing."""
    script = root / "deploy" / "compose" / "make-secrets.sh"
    script.parent.mkdir(parents=True)
    script.write_bytes((ROOT / "deploy" / "compose" / "make-secrets.sh").read_bytes())
    made: list[dict[str, bytes]] = []
    for _ in range(2):
        subprocess.run(["bash", script], check=True, capture_output=True)
        made.append({path.name: path.read_bytes() for path in (root / "secrets").iterdir()})
    assert made[0] == made[1]
    return root / "secrets"
