"""Real servers and real worker processes, faults on request, and the ledger that must balance afterwards."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from uuid import uuid4

from sqlalchemy import text

from pipeline.presets import method_config
from pipeline.records import Question
from pipeline.settings import Settings
from pipeline.store import ModelRef, Setup, Store, SubmittedBatch
from pipeline.store.database import Database
from pipeline.store.ledger import Ledger
from pipeline.store.operations import Operations
from pipeline.store.types import JobState
from tests.documents import pdf
from tests.faults.stub import IDENTITY, answer
from tests.servers import wait_for
from tests.stores import document, pages_of
from workers.app import ANSWER_TASK, Bell, answer_queue, create_app
from workers.heartbeat import Heartbeat
from workers.metrics import DatabaseCollector
from workers.process import Job
from workers.tasks import Chores

ROOT = Path(__file__).parents[2]
LEASE_S = 3.0
SCAN_S = 0.5
PATIENCE_S = 90.0
SUPERVISE = """
import sys
from workers.process import Job
from workers.supervisor import supervise
job = Job.from_json(sys.argv[1])
sys.exit(supervise(job.queue, job.settings, None))
"""
CONFIG = method_config("plain", "embedded", None, {})
SETUP = Setup(
    CONFIG.method, CONFIG.preset, CONFIG.to_dict(), CONFIG.sha256, ModelRef.of(IDENTITY), "poppler pillow 40dpi 1000000px"
)

INVARIANTS = {
    "I1 jobs that did not end": "SELECT count(*) FROM job WHERE state IN ('pending', 'running')",
    "I1 answers that are open": "SELECT count(*) FROM answer WHERE status IS NULL",
    "I2 results of jobs that did not succeed": (
        "SELECT count(*) FROM page_answer p JOIN job j ON j.id = p.job_id WHERE j.state <> 'succeeded'"
    ),
    "I2 successes without a result": (
        "SELECT count(*) FROM job j LEFT JOIN page_answer p ON p.job_id = j.id "
        "WHERE j.state = 'succeeded' AND p.job_id IS NULL"
    ),
    "I3 attempts over the limit": "SELECT count(*) FROM job WHERE attempts > max_attempts",
    "I5 jobs that ended other than once": (
        "SELECT count(*) FROM (SELECT j.id FROM job j LEFT JOIN event e ON e.job_id = j.id "
        "AND e.kind IN ('succeeded', 'failed', 'dead', 'cancelled') GROUP BY j.id HAVING count(e.id) <> 1) AS odd"
    ),
    "I4 bytes that nothing refers to": (
        "SELECT count(*) FROM blob b WHERE NOT EXISTS (SELECT 1 FROM document d WHERE d.blob_sha256 = b.sha256) "
        "AND NOT EXISTS (SELECT 1 FROM page p WHERE p.raster_blob = b.sha256) "
        "AND NOT EXISTS (SELECT 1 FROM evidence e WHERE e.crop_sha256 = b.sha256)"
    ),
    "I6 leases": "SELECT count(*) FROM job WHERE lease_owner IS NOT NULL",
    "I6 wake-ups not sent": "SELECT count(*) FROM outbox",
}


def questions(count: int) -> list[Question]:
    return [Question(f"q{number}", f"What is number {number}?") for number in range(count)]


def documents(count: int) -> list[Any]:
    return [document(f"{number}.pdf", content=pdf([f"Document {number}"])) for number in range(count)]


class Rig:
    """One database, one Redis, and the processes of one test."""

    def __init__(self, url: str, redis_url: str, folder: Path) -> None:
        self.url, self.redis_url, self.folder = url, redis_url, folder
        self.mark = uuid4().hex
        self.settings = Settings(db_url=url, redis_url=redis_url, lease_s=LEASE_S, scan_s=SCAN_S, hang_s=30.0)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.store = Store.open(url)
        self.operations = Operations.open(url)
        self.database = Database(url)
        self.bell = Bell(create_app(redis_url), redis_url)
        self._end = threading.Event()
        self._chores: threading.Thread | None = None
        self.problems: list[str] = []
        self.exported = DatabaseCollector(self.operations)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._chores is not None:
            self._chores.join()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        wait_for(lambda: not self.strays(), 10, lambda: f"processes left behind: {self.strays()}")
        self.store.close()
        self.operations.close()
        self.database.close()

    # What happens

    def submit(self, documents_count: int = 3, questions_count: int = 4, **changes: Any) -> str:
        batch = SubmittedBatch(documents(documents_count), questions(questions_count), SETUP, **changes)
        return self.store.submit(batch, pages_of).batch_id

    def start_worker(self, *, supervised: bool = False, fault: dict[str, Any] | None = None, **options: Any) -> Any:
        """A worker of the queue `answer`; options: seconds (per question), settings, environment, preexec_fn."""
        settings = dataclasses.replace(self.settings, **options.get("settings", {}))
        number = len(self.processes)
        heartbeat = self.folder / f"heartbeat-{number}"
        job = Job("answer", str(heartbeat), settings).to_json()
        command = [sys.executable, "-c", SUPERVISE, job] if supervised else [sys.executable, "-m", "workers.process"]
        with (self.folder / f"log-{number}").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stderr=log,
                stdout=log,
                cwd=self.folder,
                env=self.environment(fault, options.get("seconds", 0.0)) | options.get("environment", {}),
                preexec_fn=options.get("preexec_fn"),
            )
        if not supervised:
            process.stdin.write(job.encode() + b"\n")
        process.stdin.close()
        self.processes.append(process)
        return process

    def environment(self, fault: dict[str, Any] | None = None, seconds: float = 0.0) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EXHIBIT_")}
        path = f"{ROOT / 'tests' / 'faults' / 'inject'}{os.pathsep}{ROOT}"
        plan = {"file": str(self.folder / "fired"), **fault} if fault else {}
        own = {"PYTHONPATH": path, "FAULT": json.dumps(plan), "FAULT_SECONDS": str(seconds), "RIG": self.mark}
        return kept | own | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

    def start_chores(self) -> None:
        """Rounds of the chores worker, here: its code, without the price of another process."""
        chores = Chores(self.store, self.operations, self.bell, Heartbeat(self.folder / "heartbeat", 60))

        def rounds() -> None:
            while not self._end.wait(SCAN_S):
                try:
                    chores()
                    list(self.exported.collect())  # as Prometheus would, all the time
                except Exception as error:  # noqa: BLE001 - a round that fails is followed by the next, as in the worker
                    self.problems.append(type(error).__name__)

        self._chores = threading.Thread(target=rounds)
        self._chores.start()

    def kick(self) -> None:
        """A wake-up, whether or not one is waiting already."""
        create_app(self.redis_url).send_task(ANSWER_TASK, queue=answer_queue(SETUP.model.key))

    # What is seen

    def sql(self, statement: str, **values: Any) -> list[Any]:
        return self.database.write(lambda connection: [tuple(row) for row in connection.execute(text(statement), values)])

    def number(self, statement: str) -> int:
        return int(self.sql(statement)[0][0])

    def states(self) -> dict[str, int]:
        return dict(self.sql("SELECT state, count(*) FROM job GROUP BY state"))

    def fired(self) -> int:
        """How often the fault happened."""
        counter = self.folder / "fired"
        return len(counter.read_text().splitlines()) if counter.exists() else 0

    def log(self, number: int = 0) -> str:
        return (self.folder / f"log-{number}").read_text(errors="replace")

    def logs(self) -> str:
        return "\n".join(self.log(number)[-3000:] for number in range(len(self.processes)))

    def wait(self, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        wait_for(condition, seconds, lambda: f"{self.states()}\n{self.problems}\n{self.logs()}")

    def wait_for_fault(self) -> None:
        self.wait(lambda: self.fired() > 0)

    def wait_running(self) -> None:
        """Until a worker holds jobs."""
        self.wait(lambda: self.states().get("running", 0) > 0)

    def wait_finished(self, *batches: str) -> None:
        self.wait(lambda: all(self.store.finished(batch) for batch in batches))

    def strays(self) -> list[int]:
        """Processes of this test that are still there."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    # What must hold

    def check(self, *batches: str, dead: Sequence[str] = ()) -> None:
        """The invariants; `dead`: questions whose jobs may end without an answer."""
        self.wait(lambda: self.number(INVARIANTS["I6 wake-ups not sent"]) == 0)
        assert {name: self.number(query) for name, query in INVARIANTS.items()} == dict.fromkeys(INVARIANTS, 0)
        self._check_metrics()
        for sha256, content in self.sql("SELECT sha256, content FROM blob"):
            assert hashlib.sha256(content).hexdigest() == sha256, "I4"
        with Ledger.open(self.url) as ledger:
            assert list(ledger.verify_chain(lambda: None)) == [], "I5"
            sealed = ledger.sealed()
            answers = dict(ledger.answers(sorted(sealed)))
        assert sealed == answers, "I5: the chain holds every answer as it is stored"
        assert len(sealed) == self.number("SELECT count(*) FROM page_answer"), "I5"
        for batch in batches:
            self._check_answers(batch, dead)

    def _check_metrics(self) -> None:
        """I7: what Prometheus was told is what the tables say."""
        told = {
            (metric.name, tuple(sample.labels.values())): int(sample.value)
            for metric in self.exported.collect()
            for sample in metric.samples
            if metric.name in ("exhibit_jobs", "exhibit_job_transitions", "exhibit_dead_jobs", "exhibit_outbox_pending")
        }
        stored = {("exhibit_jobs", (state,)): 0 for state in JobState}
        stored |= {("exhibit_jobs", (state,)): count for state, count in self.states().items()}
        moved = "SELECT from_state, to_state, coalesce(error_code, kind), count(*) FROM event WHERE job_id IS NOT NULL"
        for *labels, count in self.sql(f"{moved} GROUP BY from_state, to_state, coalesce(error_code, kind)"):
            stored["exhibit_job_transitions", tuple(label or "" for label in labels)] = count
        stored["exhibit_dead_jobs", ()] = self.states().get("dead", 0)
        stored["exhibit_outbox_pending", ()] = 0
        assert told == stored, "I7"

    def _check_answers(self, batch: str, dead: Sequence[str]) -> None:
        """I8: what is stored is what a run without faults would have stored, for every (document, question) once."""
        records = list(self.store.records(batch))
        assert len(records) == self.number(f"SELECT count(*) FROM answer WHERE batch_id = '{batch}'")
        assert len({(record["document"], record["question_id"]) for record in records}) == len(records)
        for record in records:
            if record["question"] in dead:
                assert record["status"] == "failed"
                continue
            assert record["status"] == "answered", record["error"]
            expected = _expected(record)
            assert record["answer"]["text"] == expected.text, "I8"
            assert [box["box_px"] for box in record["evidence"]] == [list(expected.evidence[0].box.xyxy)], "I8"


def _expected(record: dict[str, Any]) -> Any:
    page = SimpleNamespace(document_sha256=record["document_sha256"], number=record["page"])
    return answer(page, Question("q", record["question"]))  # type: ignore[arg-type]


def stop_signal(process: subprocess.Popen[bytes], number: int, seconds: float = 30) -> int:
    process.send_signal(number)
    return process.wait(seconds)


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)


def pause(seconds: float) -> None:
    """For what takes a certain time by its nature, such as being frozen for longer than a lease."""
    time.sleep(seconds)
