"""What the commands of bench/ share: numbers and files on the command line, tables, how a command ends."""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


class WrongAnswer(Exception):
    """A library's answer is not what its operation should give."""


# --- the command line


def number(
    kind: Callable[[str], float], low: float, high: float = math.inf, *, strict: bool = False
) -> Callable[[str], Any]:
    """Return an argparse type: a finite number from `low` to `high`, or above `low` if `strict`."""

    def parse(text: str) -> float:
        value = kind(text)
        # Written this way so that NaN, for which every comparison is false, is refused.
        if not (low <= value <= high and math.isfinite(value)) or (strict and value == low):
            start = f"greater than {low}" if strict else f"at least {low}"
            end = "" if math.isinf(high) else f" and at most {high}"
            raise argparse.ArgumentTypeError(f"{text} is out of range: it must be {start}{end}")
        return value

    parse.__name__ = kind.__name__  # argparse's name for the type if the text is not a number
    return parse


def output_file(*suffixes: str) -> Callable[[str], Path]:
    """Return an argparse type: a file that can be written. It is checked at once, before minutes of measuring."""

    def parse(text: str) -> Path:
        path = Path(text)
        if suffixes and path.suffix not in suffixes:
            raise argparse.ArgumentTypeError(f"{text}: expected a name that ends in {' or '.join(suffixes)}")
        try:
            existed = path.exists()
            path.open("a").close()
            if not existed:
                path.unlink()
        except OSError as error:
            raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror}") from None
        return path

    return parse


# --- tables


def three_digits(x: float) -> str:
    return f"{x:.2f}" if x < 9.995 else f"{x:.1f}" if x < 99.95 else f"{x:.0f}"


def format_seconds(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{three_digits(seconds * 1e6)} us"
    return f"{three_digits(seconds * 1e3)} ms" if seconds < 1 else f"{three_digits(seconds)} s"


def format_ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{three_digits(ratio)}x"


def format_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align the columns: the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    lines = [title] if title else []
    for first, *others in (head, *rows):
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


# --- the end of a command


@contextlib.contextmanager
def interrupt_ignored() -> Iterator[None]:
    """Ignore Ctrl-C in this block, and for good in processes that it starts: the main process stops those."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def exit_status(work: Callable[[], None]) -> int:
    """Do the work; return the command's exit status, with a line on stderr if it is not 0."""
    try:
        work()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130  # 128 + SIGINT, as shells have it
    except WrongAnswer as error:
        print(f"wrong answer: {error}", file=sys.stderr)
        return 1
    return 0
