"""Memory and rate of one submission, by its number of (page, question) jobs: what is submitted must not have to fit.

    .venv/bin/python -m ops.bench.submit --jobs 10000 30000 100000

Each in a process of its own, on SQLite; prints one JSON line each. A small batch goes first, so that libraries and caches do
not count as growth.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime

from pipeline.records import Question
from pipeline.store import Store
from tests.stores import batch, document, pages_of

QUESTIONS = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.jobs[0])))
        return 0
    for jobs in arguments.jobs:
        subprocess.run([sys.executable, "-m", "ops.bench.submit", "--one", "--jobs", str(jobs)], check=True)
    return 0


def measure(jobs: int) -> dict[str, object]:
    documents = [document(f"{number}.pdf", content=str(number).encode()) for number in range(jobs // QUESTIONS)]
    questions = [Question(f"q{number}", f"What is number {number}?") for number in range(QUESTIONS)]
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{folder}/exhibit.db") as store:
        store.submit(batch(documents[:10], questions), pages_of)
        before, began = peak_mb(), time.monotonic()
        receipt = store.submit(batch(documents, questions), pages_of)
        seconds = time.monotonic() - began
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "jobs": receipt.jobs,
        "seconds": round(seconds, 1),
        "jobs_per_second": round(receipt.jobs / seconds),
        "peak_mb": round(peak_mb(), 1),
        "grown_mb": round(peak_mb() - before, 1),
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
