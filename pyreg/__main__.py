"""Report what runs on this machine, whether its answers are right, and how fast it is.

Paste the output into a bug report. The exit status is 0 if every check passed, else 1.
"""

import argparse
import json
import signal
import sys
import textwrap
from typing import Any

import pyreg
from pyreg._digests import digests
from pyreg._self_check import self_check
from pyreg._speed import busy_note, measure_speed


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pyreg", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true", help="print everything as one JSON object")
    what.add_argument("--digests", action="store_true", help="print only a SHA-256 of the results of each function")
    arguments = parser.parse_args(argv)
    if arguments.digests:
        print(*digests(), sep="\n")
        return 0
    return report_json() if arguments.json else report_text()


def report_text() -> int:
    pyreg.show_config()
    print("\nself-check:")
    checks = []
    for check in self_check():
        checks.append(check)
        print(f"  {'ok    ' if check.passed else 'FAILED'}  {check.name}  {check.detail}".rstrip(), flush=True)
    failed = sum(not check.passed for check in checks)
    print(f"  {failed} of {len(checks)} FAILED" if failed else f"  all {len(checks)} passed")
    threads = pyreg.get_num_threads()
    print(f"\nspeed, float32, {threads} thread{'s' if threads > 1 else ''}, with out=:")
    print("  operation            size          median       mean        p90     GB/s  of a copy")
    speeds = []
    for speed in measure_speed():
        speeds.append(speed)
        size = " x ".join(map(str, speed.shape))
        times = "".join(f"{seconds * 1e6:8,.0f} us" for seconds in (speed.seconds, speed.mean, speed.p90))
        print(f"  {speed.op:<20} {size:<10}{times} {speed.gb_per_s:8.1f} {speed.percent_of_copy:9.0f}%", flush=True)
    note = busy_note([speed.disturbed() for speed in speeds])
    if note:
        print(textwrap.indent(note, "  "))
    return 1 if failed else 0


def report_json() -> int:
    checks, speeds = list(self_check()), list(measure_speed())
    report: dict[str, Any] = {
        "config": pyreg.show_config("dicts"),
        "passed": all(check.passed for check in checks),
        "checks": [check._asdict() for check in checks],
        "speed": [speed._asdict() | {"disturbed": speed.disturbed()} for speed in speeds],
    }
    json.dump(report, sys.stdout, indent=1)
    print()
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # exit quietly when the reader closes the pipe (| head)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
