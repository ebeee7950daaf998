"""Runs the history of the `packager` database."""

from libs.common.migrations import run_env
from services.packager.tables import metadata

run_env(metadata)
