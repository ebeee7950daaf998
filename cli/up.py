"""`contentshop up`: the four services in this process."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from cli.options import DataOption, JsonOption
from cli.output import Output

DEFAULT_PORT_BASE = 50051
MAX_PORT_BASE = 65_532  # four ports from here on


class GeneratorWord(enum.StrEnum):
    """What makes the images."""

    OFFLINE = "offline"
    GEMINI = "gemini"


class LogLevelWord(enum.StrEnum):
    """How much the services say on stderr."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


GeneratorOption = Annotated[
    GeneratorWord,
    typer.Option("--generator", help="offline needs no key; gemini needs GEMINI_API_KEY"),
]


def up(
    *,
    data: DataOption = None,
    port_base: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_PORT_BASE,
            metavar="PORT",
            help="First of four ports: enqueue, assets, packager, worker; 0 takes free ones",
        ),
    ] = DEFAULT_PORT_BASE,
    generator: GeneratorOption = GeneratorWord.OFFLINE,
    log_level: Annotated[
        LogLevelWord, typer.Option(help="How much the services say on stderr")
    ] = LogLevelWord.WARNING,
    stop_on_eof: Annotated[
        bool, typer.Option(hidden=True, help="Stop when stdin ends: with who started us")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Run the whole house here: four services over gRPC on loopback, state in one folder.

    Ctrl-C stops it gracefully. After a crash or a kill it goes on where it was. The services'
    own variables (LEASE_SECONDS, WORKER_SLOTS, OFFLINE_DELAY_SECONDS …) are read as ever.
    """
    from cli import embedded  # noqa: PLC0415 - slow to import: all services

    return embedded.run_house(
        data,
        embedded.HouseOptions(
            port_base=port_base,
            generator=generator,
            log_level=log_level,
            stop_on_eof=stop_on_eof,
        ),
        Output(as_json=as_json),
    )
