"""`python -m services.<name> [serve|migrate|after-restore|settings]`, alike for every service."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import uvloop

from libs.common import env, logs
from libs.common.env import SettingsError
from libs.common.errors import ContentshopError
from libs.common.lifecycle import Component, run_until_signal
from libs.common.settings import CommonSettings

S = TypeVar("S", bound=CommonSettings)


def service_main(
    name: str,
    settings_class: type[S],
    build: Callable[[S], Component],
    migrate: Callable[[S], None] | None,
    *,
    acts: Mapping[str, Callable[[S], int]] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Runs one service; the exit code is 0, 1 for a fault and 2 for wrong settings.

    Args:
        name: the service.
        settings_class: what it reads from the environment.
        build: the service, for `serve`.
        migrate: for `migrate`; None where it has no database.
        acts: what else an operator may have it do, by command; each gives the exit code.
        argv: the arguments; those of this process by default.
    """
    acts = acts or {}
    parser = argparse.ArgumentParser(prog=f"python -m services.{name}")
    commands = ["serve", "settings", *(["migrate"] if migrate else []), *acts]
    parser.add_argument("command", choices=commands, nargs="?", default="serve")
    command = parser.parse_args(argv).command
    if command == "settings":
        for variable, default, text in env.describe(settings_class):
            sys.stdout.write(f"{variable:32} {text} [{default}]\n")
        return 0
    try:
        settings = env.load(settings_class, env.process_environ())
    except SettingsError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 2
    logs.configure(name, level=settings.log_level, json=settings.log_json)
    if command == "migrate":
        assert migrate is not None
        migrate(settings)
        return 0
    try:
        if command in acts:
            return acts[command](settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(build, settings))
    except (SettingsError, OSError, ContentshopError) as error:
        # A part that is away at the start: whoever supervises us starts us again.
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    return 0


async def _serve(build: Callable[[S], Component], settings: S) -> None:
    # Built on the loop it runs on: a gRPC channel belongs to the loop it is made on.
    await run_until_signal(build(settings))
