"""What the commands of bench/ share: numbers on the command line, how a command ends."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any

from run_case import WrongAnswer


def number(
    kind: Callable[[str], float], low: float, high: float = math.inf, *, strict: bool = False
) -> Callable[[str], Any]:
    """Return an argparse type: a finite number from `low` to `high`; `strict` leaves `low` out."""

    def parse(text: str) -> float:
        value = kind(text)
        # Put so that NaN, for which every comparison is false, is refused.
        if not (low <= value <= high and math.isfinite(value)) or (strict and value == low):
            start = f"greater than {low}" if strict else f"at least {low}"
            end = "" if math.isinf(high) else f" and at most {high}"
            raise argparse.ArgumentTypeError(f"{text} is out of range: it must be {start}{end}")
        return value

    parse.__name__ = kind.__name__  # argparse names the type so where the text is no number
    return parse


def exit_status(work: Callable[[], None]) -> int:
    """Do the work; return the command's exit status, with a line on stderr where it is not 0."""
    try:
        work()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130  # 128 + SIGINT, as shells have it
    except WrongAnswer as error:
        print(f"wrong answer: {error}", file=sys.stderr)
        return 1
    return 0
