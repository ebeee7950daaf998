"""Runs the history of the `enqueue` database."""

from libs.common.migrations import run_env
from services.enqueue.tables import metadata

run_env(metadata)
