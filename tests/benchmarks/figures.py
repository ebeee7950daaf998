"""Figures: percentiles, rows with their yardstick and target, the table and the JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not exceed; nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


@dataclass(frozen=True, slots=True)
class Target:
    """What PERFORMANCE asks of a row, of its ratio or (of_value) of its figure itself."""

    at_most: float | None = None
    at_least: float | None = None
    of_value: bool = False

    def met_by(self, value: float, ratio: float | None) -> bool | None:
        """Whether it is met; None where there is no ratio to compare."""
        figure = value if self.of_value else ratio
        if figure is None:
            return None
        if self.at_most is not None and figure > self.at_most:
            return False
        return self.at_least is None or figure >= self.at_least

    def __str__(self) -> str:
        sign, limit = ("≤", self.at_most) if self.at_most is not None else ("≥", self.at_least)
        return f"{sign} {limit:g}{'' if self.of_value else ' x'}"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: the median over the rounds, beside its yardstick's of the same rounds.

    Attributes:
        what: is measured, settings included.
        value: of ours, in `unit`.
        unit: such as `/s`, `ms`, `MB/s`.
        yardstick: what it is held against, and its figure.
        ratio: ours / yardstick.
        target: what is asked.
        met: whether it is.
    """

    what: str
    value: float
    unit: str
    yardstick: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


@dataclass(slots=True)
class Report:
    """The rows of all measures, and the samples behind them."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    samples: dict[str, Any] = field(default_factory=dict)

    def add(
        self,
        measure: str,
        what: str,
        value: float,
        unit: str,
        *,
        against: tuple[str, float] | None = None,
        target: Target | None = None,
    ) -> None:
        """Adds a row; `against` is the yardstick's name and figure in the same unit."""
        ratio = value / against[1] if against and against[1] else None
        row = Row(
            what,
            value,
            unit,
            f"{against[0]} {_short(against[1])}" if against else "",
            ratio,
            str(target) if target else "",
            target.met_by(value, ratio) if target else None,
        )
        self.rows.setdefault(measure, []).append(row)

    def table(self, measure: str) -> Table:
        """The rows of a measure, for people."""
        table = Table(title=measure, title_justify="left", title_style="bold")
        for name in ("what", "figure", "yardstick", "ratio", "target", ""):
            right = name in {"figure", "ratio"}
            table.add_column(name, justify="right" if right else "left", no_wrap=right)
        for row in self.rows.get(measure, ()):
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            verdict = {True: "met", False: "[red]not met[/red]", None: ""}[row.met]
            figure = f"{_short(row.value)} {row.unit}".strip()
            table.add_row(row.what, figure, row.yardstick, ratio, row.target, verdict)
        return table

    def print(self, measure: str, console: Console) -> None:
        """Shows a measure as soon as it is done."""
        console.print(self.table(measure))

    def write(self, path: Path, facts: dict[str, Any]) -> None:
        """Writes all as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {measure: [asdict(row) for row in rows] for measure, rows in self.rows.items()}
        text = json.dumps({**facts, "rows": rows, "samples": self.samples}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


def _short(value: float) -> str:
    """Three digits that matter."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
