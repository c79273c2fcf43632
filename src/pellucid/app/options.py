"""Command-line options from dataclasses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import tyro

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], *, command: str, default: T | None = None) -> T:
    """The options of a command. Flags are flat, whatever the nesting of the dataclasses behind them.

    Exits with 2, having said why, when the arguments are not understood.
    """
    chosen: T = tyro.cli(  # type: ignore[assignment]
        kind,
        prog=f"pellucid {command}",
        args=list(arguments),
        default=default,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    return chosen
