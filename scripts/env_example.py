"""Prints .env.example: every variable of every service, with its default and meaning."""

from __future__ import annotations

import importlib
import sys

from libs.common import env

seen: set[str] = set()
lines = [
    "# Every variable of every service, made by scripts/env_example.py. Any NAME may come from a",
    "# file instead: NAME_FILE=/path. What is commented out has the default shown.",
]
for service in ("enqueue", "assets", "worker", "packager"):
    settings = importlib.import_module(f"services.{service}.settings").Settings
    lines += ["", f"# --- {service}"]
    for variable, default, text in env.describe(settings):
        if variable in seen:
            continue
        seen.add(variable)
        lines += [f"# {text}", f"#{variable}={default}"]
sys.stdout.write("\n".join(lines) + "\n")
