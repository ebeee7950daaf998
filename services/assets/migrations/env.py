"""Runs the history of the `assets` database."""

from libs.common.migrations import run_env
from services.assets.tables import metadata

run_env(metadata)
