"""`exhibit eval --db`: real worker, chores and beat processes answer; the runner and a worker are killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.cli import main
from pipeline.evaluation.results import Result, read_results
from pipeline.store import upgrade
from pipeline.store.database import Database
from tests.documents import pdf
from tests.servers import Postgres, Redis, wait_for
from tests.tiny_models import build

pytestmark = pytest.mark.slow

ARMS = ("--arm", "plain+max_new_tokens=3", "--arm", "entropy-gradient+max_new_tokens=3+rounds=2")
DOCUMENTS, QUESTIONS = 3, 2
SECONDS = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("embedded", tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A benchmark of a few pages, the last document of four pages, so that it is swept first."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = []
    for document in range(DOCUMENTS):
        pages = [[f"Number {document}", f"Page {page}"] for page in range(4 if document == DOCUMENTS - 1 else 1)]
        (folder / f"{document}.pdf").write_bytes(pdf(*pages))
        for question in range(QUESTIONS):
            lines.append(
                {
                    "id": f"test/field/clean/{document}-{question}",
                    "part": "test",
                    "task": "field",
                    "quality": "clean",
                    "document": f"{document}.pdf",
                    "question": f"What is number {question}?",
                    "type": "text",
                    "choices": [],
                    "answers": [str(document)],
                    "evidence": [{"page": 1, "box": [100, 100, 300, 200]}],
                    "answerable": True,
                }
            )
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@contextmanager
def service(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the command line with all its children in a group of its own, ended with the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXHIBIT_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        env=kept | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def told(result: Result) -> tuple[object, ...]:
    """What does not depend on who computed it, and when; passes do: a job that a killed worker held is tried again alone."""
    return result.text, result.not_found, result.failure, result.page, result.regions, result.rounds, result.stop


def test_a_deployments_workers_answer_and_killed_ones_cost_nothing(
    postgres: Postgres, redis: Redis, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed: the runner after it has submitted, a worker process with jobs in hand. The results are those of a run here."""
    url = postgres.new_database()
    upgrade(url)
    database = Database(url)
    places = "--db", url, "--redis", redis.url()
    worker = ("worker", "--queue", "answer", "--model", str(model), "--lease", "5", *places)
    asked = ["eval", "pages", "--data", str(data), "--model", str(model), *ARMS]
    out = tmp_path / "elsewhere"

    def count(statement: str) -> int:
        return int(database.write(lambda connection: connection.execute(text(statement)).scalar_one()))

    def soon(condition: Callable[[], bool]) -> None:
        wait_for(condition, SECONDS, lambda: f"{count('SELECT count(*) FROM job')} jobs")

    with service("worker", "--queue", "chores", *places), service("beat", "--redis", redis.url(), "--scan", "1"):
        with service(*asked, "--db", url, "--out", str(out)) as runner:
            soon(lambda: count("SELECT count(*) FROM batch") == 2)
            runner.kill()
            runner.wait()
        with service(*worker):
            soon(lambda: count("SELECT count(*) FROM job WHERE state = 'running'") > 0)
            owner = database.write(lambda c: c.execute(text("SELECT max(lease_owner) FROM job")).scalar_one())
            if owner is not None:  # else it has finished within this very moment
                os.kill(int(owner.rsplit(":", 2)[1]), signal.SIGKILL)
            assert main([*asked, "--db", url, "--out", str(out)]) == 0
    assert count("SELECT count(*) FROM batch") == 2  # the second runner found the first one's
    assert count("SELECT count(*) FROM answer") == 2 * DOCUMENTS * QUESTIONS
    database.close()
    assert main([*asked, "--out", str(tmp_path / "here")]) == 0
    assert "| plain+max_new_tokens=3 | 6 |" in capsys.readouterr().out
    here, elsewhere = (
        {(one.arm, one.example): told(one) for one in read_results(folder)} for folder in (tmp_path / "here", out)
    )
    assert len(elsewhere) == 2 * DOCUMENTS * QUESTIONS
    assert elsewhere == here
    (lines,) = out.glob("*.jsonl")
    assert len(lines.read_text().splitlines()) == len(elsewhere)
