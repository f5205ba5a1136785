"""Nightly extraction: fired once, whatever is new and whole, and a summary that is right."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.settings import Settings
from pipeline.store import Store, SubmittedBatch
from pipeline.store.schedules import ScheduleRun, Schedules
from pipeline.work import Worker
from tests.acceptance.conftest import command, environment
from tests.documents import pdf
from tests.faults import stub
from tests.faults.rig import SETUP, documents, questions
from tests.servers import wait_for
from tests.stores import pages_of, work_off
from tests.tiny_models import build
from workers import metrics
from workers.cron import Cron
from workers.nightly import Nightly, mail

SECOND = timedelta(seconds=1)


class Night:
    """A schedule over a folder, with a clock of its own."""

    def __init__(self, url: str, store: Store, folder: Path, model: str) -> None:
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        questions = folder / "questions.csv"
        questions.write_text("question_id,question\nnumber,What is the number?\n")
        self.url, self.store = url, store
        self.schedules = Schedules.open(url)
        self.now = datetime.now(UTC)
        self.schedules.now = lambda: self.now  # type: ignore[method-assign]
        options = {"model": model, "pages": "all", "set": [], "dpi": 60.0, "questions": str(questions)}
        arguments = {**options, "question": [], "recursive": False, "force": False}
        self.schedules.add("nightly", "0 2 * * *", "UTC", str(self.inbox), arguments)
        (schedule,) = self.schedules.all()
        # The first two o'clock after the schedule was made, by the database's clock, whatever time of day the tests run at.
        tonight = schedule.created_at.replace(hour=2, minute=0, second=5, microsecond=0)
        self.now = self.tonight = tonight if schedule.created_at < tonight - 5 * SECOND else tonight + timedelta(days=1)
        self.round = Nightly(store, self.schedules, Settings(db_url=url, settle_s=2.0), try_again_s=0.0)

    def put(self, name: str, *lines: str) -> Path:
        path = self.inbox / name
        path.write_bytes(pdf(lines))
        return path

    def rounds(self, count: int, step: timedelta = 3 * SECOND) -> None:
        for _ in range(count):
            self.round()
            work_off(self.store)
            self.now += step

    def run(self) -> None:
        """One whole night, then on to the next."""
        self.rounds(4)
        self.now = (self.now + timedelta(days=1)).replace(hour=2, minute=0, second=5)

    def summary(self) -> dict:
        run = self.schedules.runs("nightly", 1)[0]
        assert run.state == "done"
        assert run.summary is not None
        return dict(run.summary)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build("embedded", tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def night(store_url: str, store: Store, tmp_path: Path, model: str) -> Iterator[Night]:
    night = Night(store_url, store, tmp_path, model)
    yield night
    night.schedules.close()


def test_two_nights(night: Night):
    """What is new is asked; the second night takes only what is new or has changed, and says what changed."""
    night.put("a.pdf", "Number 1")
    night.put("b.pdf", "Number 2")
    (night.inbox / "notes.txt").write_text("no document")
    (night.inbox / ".hidden.pdf").write_bytes(pdf(["Number 9"]))
    (night.inbox / "link.pdf").symlink_to(night.inbox / "a.pdf")
    night.run()
    first = night.summary()
    assert (first["documents"], first["answers"]["answered"], first["missed"]) == (2, 2, 0)
    assert first["failures"] == first["changed"] == []
    (night.inbox / "b.pdf").rename(night.inbox / "renamed.pdf")
    night.put("a.pdf", "Number 1, corrected")
    (night.inbox / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    night.run()
    second = night.summary()
    assert second["documents"] == 2, "the renamed one is known by its digest"
    assert (second["answers"]["answered"], second["answers"]["failed"]) == (1, 1)
    ((failed),) = second["failures"]
    assert (Path(failed["document"]).name, failed["question_id"]) == ("broken.pdf", "number")
    ((changed),) = second["changed"]
    assert Path(changed["document"]).name == "a.pdf"
    text = mail(second, lambda answer_id: f"<{answer_id}>")
    assert text.startswith("Subject: Exhibit nightly: 1 answered, 1 failed, 1 changed (")
    assert "2 new documents: 1 answered, 1 failed." in text
    assert f"<{changed['before_id']}> -> <{changed['answer_id']}>" in text
    night.run()
    third = night.summary()
    assert (third["documents"], sum(third["answers"].values())) == (0, 0)
    assert "nothing new" in mail(third, str)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_came_of_a_night_is_written_into_a_folder(night: Night, tmp_path: Path, form: str):
    """Answers, summary and mail; a folder that is away for a while costs nothing but that while."""
    folder = tmp_path / "exports"
    (schedule,) = night.schedules.all()
    night.schedules.remove(schedule.name)
    arguments = {**schedule.arguments, "export": str(folder), "format": form}
    night.schedules.add(schedule.name, schedule.cron, schedule.timezone, schedule.inbox, arguments)
    night.put("a.pdf", "Number 1")
    night.rounds(4)
    run = night.schedules.runs("nightly", 1)[0]
    assert run.state == "answering", "there is no such folder yet"
    folder.mkdir()
    night.rounds(1)
    summary = night.summary()
    stem = f"nightly-{run.fire_time:%Y%m%dT%H%MZ}"
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(files) == {f"{stem}.{form}", f"{stem}.summary.json", f"{stem}.mail.txt"}
    assert json.loads(files[f"{stem}.summary.json"]) == summary
    assert files[f"{stem}.mail.txt"].startswith("Subject: Exhibit nightly: 1 answered (")
    assert "a.pdf" in files[f"{stem}.{form}"]
    night.now = (night.now + timedelta(days=1)).replace(hour=2, minute=0, second=5)
    night.inbox.rename(tmp_path / "away")
    night.round.try_again_s = 3600.0
    night.rounds(1)
    night.now += timedelta(hours=2)
    night.schedules.hand_back(night.schedules.runs("nightly", 1)[0])
    night.rounds(1)
    failed = night.schedules.runs("nightly", 1)[0]
    assert failed.state == "failed"
    mails = sorted(path.read_text() for path in folder.glob("*.mail.txt"))
    assert len(mails) == 2, "a night that failed says so, too"
    assert any("FAILED" in text and "inbox_missing" in text for text in mails)


def test_a_file_that_is_being_written_waits(night: Night):
    """A run waits for it; when it does not come to rest in time, the others are asked and it is left to the next night."""
    night.put("whole.pdf", "Number 1")
    growing = night.put("growing.pdf", "Number 2")
    for _ in range(3):
        night.rounds(1)
        growing.write_bytes(growing.read_bytes() + b" ")
    assert night.schedules.runs("nightly")[0].state == "collecting"
    night.rounds(1, timedelta(minutes=11))
    growing.write_bytes(growing.read_bytes() + b" ")
    night.run()
    assert night.summary()["documents"] == 1
    night.run()
    assert night.summary()["documents"] == 1
    assert {Path(record["document"]).name for record in night.store.records()} == {"whole.pdf", "growing.pdf"}


def test_a_file_that_changes_while_it_is_read_is_looked_at_again(night: Night, monkeypatch: pytest.MonkeyPatch):
    """It is not taken half."""
    path = night.put("a.pdf", "Number 1")
    night.rounds(1)
    monkeypatch.setattr("workers.nightly.list_inbox", lambda _: iter([(str(path), (1, 1))]))
    night.rounds(3)
    assert night.schedules.runs("nightly")[0].state == "collecting"
    monkeypatch.undo()
    night.rounds(4)
    assert night.summary()["documents"] == 1


def test_any_number_of_schedulers_fire_once(night: Night, store: Store):
    """Four at the same time, round after round: one run, one batch, every answer once."""
    night.put("a.pdf", "Number 1")
    settings = Settings(db_url=night.url, settle_s=2.0)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            list(pool.map(lambda _: Nightly(store, night.schedules, settings)(), range(4)))
            work_off(store)
            night.now += 3 * SECOND
    assert len(night.schedules.runs("nightly")) == 1
    assert len(store.batches()) == 1
    assert night.summary()["answers"]["answered"] == 1


def test_missed_nights_are_caught_up_and_reported(night: Night):
    """Nobody was there for three nights: the fourth takes everything and says so."""
    night.put("a.pdf", "Number 1")
    night.now += timedelta(days=3)
    night.run()
    summary = night.summary()
    assert (summary["missed"], summary["documents"]) == (3, 1)
    assert "3 earlier firings were missed" in mail(summary, str)


def test_a_run_that_cannot_be_done_is_tried_again_the_same_night(night: Night):
    """The folder is away for some minutes."""
    night.put("a.pdf", "Number 1")
    night.inbox.rename(night.inbox.with_name("away"))
    night.rounds(3, timedelta(minutes=5))
    assert night.schedules.runs("nightly")[0].state == "collecting"
    night.inbox.with_name("away").rename(night.inbox)
    night.rounds(4)
    assert (night.summary()["documents"], night.summary()["answers"]["answered"]) == (1, 1)


def test_a_run_that_cannot_be_done_for_an_hour_fails_and_the_next_one_takes_its_files(night: Night):
    """The folder is away for a night."""
    night.put("a.pdf", "Number 1")
    night.inbox.rename(night.inbox.with_name("away"))
    night.rounds(3, timedelta(minutes=40))
    (run,) = night.schedules.runs("nightly")
    assert (run.state, run.summary["error"]["code"]) == ("failed", "inbox_missing")
    assert "FAILED" in mail(run.summary, str)
    night.inbox.with_name("away").rename(night.inbox)
    night.now = (night.now + timedelta(days=1)).replace(hour=2, minute=0, second=5)
    night.run()
    assert night.summary()["documents"] == 1


@pytest.mark.timeout(900)
def test_a_nightly_audit(night: Night, sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a process of its own; the chain's head is written down each time, and what was altered makes the run fail."""
    heads = tmp_path / "heads.jsonl"
    night.schedules.remove("nightly")
    night.schedules.add("verify", "0 3 * * *", "UTC", "", {"audit": True, "anchor": str(heads)})
    monkeypatch.setattr("pipeline.answer.answer_page", stub.answer_page)
    answered = night.store.submit(SubmittedBatch(documents(1), questions(2), SETUP), pages_of).batch_id
    worker = Worker(night.store, stub.StubVlm)  # type: ignore[arg-type]
    worker.work_off(answered)
    worker.close()

    def audited(number: int) -> ScheduleRun:
        night.now = (night.tonight + timedelta(days=number)).replace(hour=3)

        def ended() -> bool:
            night.round()
            runs = night.schedules.runs("verify")
            return len(runs) == number and runs[0].state in ("done", "failed")

        wait_for(ended, 240, lambda: str(night.schedules.runs("verify")))
        return night.schedules.runs("verify")[0]

    for number in (1, 2):
        clean = audited(number)
        assert (clean.state, clean.summary["found"]) == ("done", 0)
        assert len(heads.read_text().splitlines()) == number
    assert "Subject: Exhibit verify: nothing was altered (" in mail(clean.summary, str)
    assert "2 page answers" in mail(clean.summary, str)
    before = metrics.AUDIT_FAILURES._value.get()
    sql("UPDATE page_answer SET text = 'another' WHERE job_id = 1")
    failed = audited(3)
    assert (failed.state, [item["what"] for item in failed.summary["findings"]]) == ("failed", ["answer"])
    assert "Subject: Exhibit verify: 1 FINDINGS (" in mail(failed.summary, str)
    assert len(heads.read_text().splitlines()) == 2, "what is not right is not written down as the head"
    assert metrics.AUDIT_FAILURES._value.get() == before + 1
    night.round.close()


def test_a_paused_schedule_rests_and_a_removed_one_is_forgotten(night: Night):
    """Its history stays."""
    night.schedules.pause("nightly", paused=True)
    night.run()
    assert night.schedules.runs("nightly") == []
    night.schedules.pause("nightly", paused=False)
    night.run()
    assert night.summary()["missed"] == 1
    night.schedules.remove("nightly")
    assert night.schedules.all() == []
    assert len(night.schedules.runs("nightly")) == 1
    with pytest.raises(UsageError, match="no schedule nightly"):
        night.schedules.remove("nightly")


@pytest.mark.parametrize(
    ("line", "zone", "after", "until", "fired"),
    [
        ("0 2 * * *", "UTC", "2026-01-01T02:00", "2026-01-03T02:00", ["2026-01-02T02:00", "2026-01-03T02:00"]),
        # 02:30 does not exist on 29 March in Berlin: half past one UTC is 03:30 there.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T12:00", ["2026-03-29T01:30"]),
        # It exists twice on 25 October, and fires once.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T12:00", ["2026-10-25T00:30"]),
        ("0 0 29 2 *", "UTC", "2024-01-01T00:00", "2028-01-01T00:00", ["2024-02-29T00:00"]),
        ("0 0 1 * 7", "UTC", "2026-11-01T01:00", "2026-11-09T00:00", ["2026-11-08T00:00"]),
        ("*/30 8-9 * * 1-5", "UTC", "2026-11-20T09:00", "2026-11-23T08:00", ["2026-11-20T09:30", "2026-11-23T08:00"]),
    ],
)  # fmt: skip
def test_cron_lines(line: str, zone: str, after: str, until: str, fired: list[str]):
    def moment(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    assert Cron.parse(line, zone).fired(moment(after), moment(until)) == [moment(text) for text in fired]


@pytest.mark.parametrize(
    ("line", "zone"), [("0 2 * *", "UTC"), ("0 25 * * *", "UTC"), ("x * * * *", "UTC"), ("0 2 * * *", "Mars")]
)
def test_wrong_cron_lines(line: str, zone: str):
    with pytest.raises(UsageError, match=r"--cron|--timezone"):
        Cron.parse(line, zone)


def test_the_commands(tmp_path: Path, model: str):
    """Added, listed, paused, resumed, removed; what is wrong is said at once."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "q.csv").write_text("question_id,question\nnumber,What is the number?\n")

    def exhibit(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            command(arguments), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    add = ("schedule", "add", "n1", "--cron", "0 2 * * *", "--inbox", "inbox", "--questions", "q.csv", "--model", model)
    exhibit(*add)
    assert "there is a schedule n1" in exhibit(*add, code=2)
    assert "no such folder" in exhibit(*add[:6], "nowhere", *add[7:], code=2)
    listed = exhibit("schedule", "list")
    assert str(tmp_path / "inbox") in listed
    assert "never" in listed
    exhibit("schedule", "pause", "n1")
    assert "paused" in exhibit("schedule", "list")
    assert "no finished run" in exhibit("schedule", "show", "n1", code=2)
    exhibit("schedule", "remove", "n1")
    assert "n1" not in exhibit("schedule", "list")


def test_a_mail_keeps_its_lines_whatever_a_document_is_called():
    """A name or an answer may hold anything; what follows a line's end in it is no line of ours."""
    about = {"schedule": "n", "fire_time": "2026-11-20T02:00:00+00:00", "documents": 1, "missed": 0}
    failures = [{"document": "a\nBcc: everybody\x1b[31m.pdf", "question_id": "q", "code": "page_corrupt"}]
    changed = [{"document": "b.pdf", "question_id": "q", "answer_id": "2", "before_id": "1"}]
    summary = {**about, "answers": {"answered": 1, "failed": 1}, "failures": failures, "changed": changed}
    lines = mail(summary, lambda answer_id: f"line\nof {answer_id}").splitlines()
    assert not any(line.startswith(("Bcc", "of ")) for line in lines)
    assert "\x1b" not in "".join(lines)


def test_a_schedule_that_never_was_is_told_from_one_without_a_run(night: Night, capsys: pytest.CaptureFixture[str]):
    """And a name that no file can carry is refused."""
    assert main(["schedule", "show", "nightly", "--db", night.url]) == 2
    assert "has no finished run yet" in capsys.readouterr().err
    assert main(["schedule", "show", "nigthly", "--db", night.url]) == 2
    assert "no schedule nigthly" in capsys.readouterr().err
    add = ["schedule", "add", "a/b", "--cron", "0 2 * * *", "--inbox", str(night.inbox), "--questions", "q.csv"]
    assert main([*add, "--db", night.url]) == 2
    assert "expected a name of letters" in capsys.readouterr().err
