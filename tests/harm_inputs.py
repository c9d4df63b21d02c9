"""Bad input given for real to the command, kind by kind, and damaged files to the readers.

    python tests/harm_inputs.py [--fuzz 2500] [--seed 0]

Prints a Markdown table of what was tried and what came of it; exit code 1 if a promise was broken. The kinds and the
damages stand in `harm/`. The test suite does the same in its own process and with fewer damaged files
(`test_harm_inputs.py`). Not collected by pytest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from harm import KINDS
from harm.fuzz import fuzz
from harm.kinds import run_command, try_kind


@dataclass
class Row:
    """What came of the kinds of one group."""

    tried: int = 0
    refused: int = 0
    slowest_s: float = 0.0


def try_all(failures: list[str]) -> dict[str, Row]:
    """Try every kind, each in an empty folder; return a row for each group and add to the failures."""
    rows: dict[str, Row] = {}
    for number, kind in enumerate(KINDS, 1):
        row = rows.setdefault(kind.group, Row())
        row.tried += 1
        began = time.perf_counter()
        folder = Path(tempfile.mkdtemp())
        try:
            try_kind(kind, folder, run_command)
            row.refused += 1
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failures.append(str(error))
        row.slowest_s = max(row.slowest_s, time.perf_counter() - began)
        print(f"[{number}/{len(KINDS)}] {kind}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    return rows


def main() -> int:
    """Try everything, print the table; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fuzz", type=int, default=2500, metavar="COUNT", help="damaged files in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failures: list[str] = []
    rows = try_all(failures)
    kept = Path(tempfile.mkdtemp(prefix="harm-inputs-"))
    tallies = fuzz(options.fuzz, options.seed, kept)
    print("| bad input | tried | refused as promised | accepted | failed | slowest s | extra MiB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for group, row in rows.items():
        print(f"| {group} | {row.tried} | {row.refused} | | {row.tried - row.refused} | {row.slowest_s:.1f} | |")
    for format_, tally in tallies.items():
        cells = (tally.tried, tally.refused, tally.accepted, len(tally.failures))
        print(f"| damaged {format_} | {' | '.join(map(str, cells))} | {tally.slowest_s:.3f} | {tally.extra_mib:.0f} |")
        failures += tally.failures
    for failure in failures:
        print(f"\n{failure}")
    if any(kept.iterdir()):
        print(f"\nThe damaged files that failed: {kept}")
    else:
        kept.rmdir()
    return 1 if failures else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
