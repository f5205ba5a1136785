"""Nightly extraction: fire on time, take what is new in a folder, ask it, and say what came of it. And nightly audits.

Everything that must be known tomorrow stands in SQL, so any chores worker can go on where another died, two of them fire
once, and a night that nobody was there for is caught up by the next one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.cli.tables import printable
from pipeline.errors import DocumentCorrupt, ExhibitError, InboxMissing, StoreUnavailable, UsageError
from pipeline.export import export_records
from pipeline.export.files import binary_output
from pipeline.records import AnswerStatus
from pipeline.settings import Settings
from pipeline.store import Store
from pipeline.store.schedules import Change, InboxFile, Schedule, ScheduleRun, Schedules, Seen
from pipeline.submission import DOCUMENT_SUFFIXES, pages_of
from workers import metrics
from workers.audits import AUDIT, AuditReport, RunningAudits
from workers.cron import Cron
from workers.logs import log

WAIT_S = 600.0
"""How long a run waits for files that are being written; what is not whole by then is taken by the next run."""
TRY_AGAIN_S = 300.0
TRY_FOR_S = 3600.0
"""A run that cannot be done, because its folder is away for instance, is tried again for so long."""
SUMMARY_VERSION = "1.0"


@dataclass(eq=False)
class Nightly:
    """One round of all schedules; called every scan."""

    store: Store
    schedules: Schedules
    settings: Settings
    wait_s: float = WAIT_S
    try_again_s: float = TRY_AGAIN_S

    def __post_init__(self) -> None:
        self._audits = RunningAudits(self.settings)

    def close(self) -> None:
        """End audits that are still running; another chores worker begins them anew."""
        self._audits.close()

    def __call__(self) -> None:
        """Fire what is due and bring every open run one step further."""
        now = self.schedules.now()
        for run, report in self._audits.look():
            if report is None:
                self.schedules.keep(run)
            else:
                self._conclude_audit(run, report, now)
        by_name = self._by_name()
        for schedule in by_name.values():
            if not schedule.paused:
                self._fire(schedule, now)
        collecting: set[str] = set()
        for run in self.schedules.take_runs():
            if run.state == "collecting" and run.schedule in collecting:
                self.schedules.hand_back(run)  # the earlier run takes what is there
                continue
            collecting.add(run.schedule)
            self._advance(run, by_name.get(run.schedule), now)

    def _by_name(self) -> dict[str, Schedule]:
        return {schedule.name: schedule for schedule in self.schedules.all()}

    def _fire(self, schedule: Schedule, now: datetime) -> None:
        cron = Cron.parse(schedule.cron, schedule.timezone)
        due = cron.fired(self.schedules.last_fire(schedule.name) or schedule.created_at, now)
        # What several missed nights would have taken, the last of them takes.
        if due and self.schedules.fire(schedule.name, due[-1], now, missed=len(due) - 1):
            _log("schedule fired", schedule.name, logging.WARNING if len(due) > 1 else logging.INFO, count=len(due))

    def _advance(self, run: ScheduleRun, schedule: Schedule | None, now: datetime) -> None:
        try:
            if run.state == "answering":
                self._conclude(run)
            elif schedule is None:
                self._end(run, "failed", {"error": {"code": "usage", "message": "the schedule was removed"}})
            elif AUDIT in schedule.arguments:
                self._audits.start(run, schedule.arguments)
            else:
                self._collect(run, schedule, now)
        except DocumentCorrupt:
            self.schedules.hand_back(run, seen={})  # a file changed after all: look again
        except StoreUnavailable:
            raise
        except ExhibitError as error:
            self._fail(run, now, error.code, str(error))

    def _fail(self, run: ScheduleRun, now: datetime, code: str, message: str) -> None:
        """Try again after a while, or leave it to the next firing."""
        if now - run.started_at < timedelta(seconds=TRY_FOR_S):
            _log("schedule is tried again", f"{run.schedule}: {message}", logging.WARNING, error_code=code)
            self.schedules.hand_back(run, wait=timedelta(seconds=self.try_again_s))
        else:
            self._end(run, "failed", {"error": {"code": code, "message": message}})

    def _conclude_audit(self, run: ScheduleRun, report: AuditReport, now: datetime) -> None:
        if report.error is not None:
            self._fail(run, now, *report.error)
            return
        metrics.AUDIT_FAILURES.inc(report.found)
        summary = {"audit": report.counts, "found": report.found, "findings": report.findings}
        self._end(run, "failed" if report.found else "done", summary)

    def _end(self, run: ScheduleRun, state: str, found: Mapping[str, Any]) -> None:
        about = {"schema_version": SUMMARY_VERSION, "schedule": run.schedule, "fire_time": run.fire_time.isoformat()}
        summary = {**about, "missed": run.missed, **found}
        try:
            self._export(run, summary)
        except UsageError as error:
            if state == "done":
                raise  # until the folder can be written, for as long as anything is tried again
            _log("summary not written", f"{run.schedule}: {error}", logging.WARNING, error_code=error.code)
        _log(f"schedule {state}", run.schedule, logging.ERROR if state == "failed" else logging.INFO)
        self.schedules.hand_back(run, state=state, summary=summary)

    def _export(self, run: ScheduleRun, summary: Mapping[str, Any]) -> None:
        """Write the answers, the summary and the mail into the schedule's folder, if it has one; again is the same."""
        schedule = self._by_name().get(run.schedule)
        if schedule is None or not schedule.arguments.get("export"):
            return
        place = Path(schedule.arguments["export"]) / f"{run.schedule}-{run.fire_time:%Y%m%dT%H%MZ}"
        if run.batch_id is not None and "error" not in summary:
            form = schedule.arguments["format"]
            export_records(self.store.records(run.batch_id), place.with_name(f"{place.name}.{form}"), form)
        _write(place.with_name(f"{place.name}.summary.json"), json.dumps(summary, ensure_ascii=False, indent=2) + "\n")
        # The last one: whoever sends it finds the others there.
        _write(place.with_name(f"{place.name}.mail.txt"), mail(summary, lambda answer_id: text_of(self.store, answer_id)))

    def _collect(self, run: ScheduleRun, schedule: Schedule, now: datetime) -> None:
        """Wait until the new files are whole, then submit them."""
        known, digests = self.schedules.known(schedule.name)
        found = {path: stamp for path, stamp in list_inbox(Path(schedule.inbox)) if (path, *stamp) not in known}
        seen = look(found, run.seen, now.timestamp())
        whole = [path for path, (_, _, since) in seen.items() if now.timestamp() - since >= self.settings.settle_s]
        if len(whole) < len(seen) and self._may_wait(run, seen, now):
            self.schedules.hand_back(run, seen={path: list(value) for path, value in seen.items()})
            return
        files = [read(path, found[path]) for path in sorted(whole)]
        new = {file.sha256: file for file in reversed(files) if file.sha256 not in digests}
        paths = [file.path for file in files if new.get(file.sha256) is file]
        batch = self._submit(run, schedule, paths) if paths else None
        self.schedules.submitted(run, batch, files)
        _log("schedule submitted", schedule.name, count=len(paths))

    def _may_wait(self, run: ScheduleRun, seen: Seen, now: datetime) -> bool:
        """Whether the run waits for files that are not whole: from its first look on, which may have been a late one."""
        first_look = min(since for _, _, since in seen.values())
        late = timedelta(seconds=self.wait_s + TRY_FOR_S)
        return now.timestamp() - first_look < self.wait_s and now - run.started_at < late

    def _submit(self, run: ScheduleRun, schedule: Schedule, paths: list[str]) -> str:
        from pipeline.cli.run import prepare

        given: dict[str, Any] = dict(schedule.arguments)
        arguments = argparse.Namespace(**given, documents=paths, name=f"{schedule.name} {run.fire_time.isoformat()}")
        options = {name: value for name, value in given.items() if name in Settings.__dataclass_fields__}
        settings = Settings.load({**options, "db_url": self.settings.db_url, "redis_url": self.settings.redis_url})
        prepared = prepare(arguments, settings)
        return self.store.submit(prepared.batch, pages_of).batch_id

    def _conclude(self, run: ScheduleRun) -> None:
        if run.batch_id is None:
            nothing = dict.fromkeys(AnswerStatus, 0)
            self._end(run, "done", {"documents": 0, "answers": nothing, "failures": [], "changed": []})
        elif self.store.finished(run.batch_id):
            self._end(run, "done", self._summary(run, run.batch_id))
        else:
            self.schedules.hand_back(run)

    def _summary(self, run: ScheduleRun, batch_id: str) -> dict[str, Any]:
        """Counts and ids; the answers themselves stay in their tables, where they can be erased."""
        progress = self.store.progress(batch_id)
        failed = self.store.records(batch_id, status=AnswerStatus.FAILED)
        failures = [
            {"document": record["document"], "question_id": record["question_id"], "code": record["error"]["code"]}
            for record in failed
        ]
        return {
            "batch_id": batch_id,
            "documents": self._document_count(batch_id),
            "answers": {status.value: progress.answers.get(status, 0) for status in AnswerStatus},
            "failures": failures,
            "changed": [_change_json(change) for change in self.schedules.changes(run)],
        }

    def _document_count(self, batch_id: str) -> int:
        return next(batch.documents for batch in self.store.batches() if batch.batch_id == batch_id)


def _change_json(change: Change) -> dict[str, str]:
    return {
        "document": change.document,
        "question_id": change.question_id,
        "answer_id": change.answer_id,
        "before_id": change.before_id,
    }


def _log(event: str, schedule: str, level: int = logging.INFO, **fields: Any) -> None:
    log.log(level, event, extra={"reason": schedule, **fields})


def list_inbox(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """The documents in a folder and its folders: path, and size with time of change. No hidden files and no links."""
    for parent, folders, names in os.walk(folder, onerror=_missing):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent) / name
            if name.startswith(".") or path.suffix.lower() not in DOCUMENT_SUFFIXES or path.is_symlink():
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            yield str(path), (status.st_size, status.st_mtime_ns)


def _missing(error: OSError) -> None:
    raise InboxMissing(f"the inbox {error.filename} cannot be read: {error.strerror}")


def look(found: Mapping[str, tuple[int, int]], before: Seen, now: float) -> dict[str, tuple[int, int, float]]:
    """What is in the inbox now, and since when each file has been what it is."""
    seen = {}
    for path, (size, mtime_ns) in found.items():
        earlier = before.get(path)
        same = earlier is not None and (earlier[0], earlier[1]) == (size, mtime_ns)
        seen[path] = (size, mtime_ns, float(earlier[2]) if same and earlier is not None else now)
    return seen


def read(path: str, stamp: tuple[int, int]) -> InboxFile:
    """A file's digest.

    Raises:
        DocumentCorrupt: It is no longer what it was when it was listed.
    """
    try:
        with Path(path).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            status = os.fstat(stream.fileno())
    except OSError as error:
        raise DocumentCorrupt(f"{path}: {error.strerror}") from error
    if (status.st_size, status.st_mtime_ns) != stamp:
        raise DocumentCorrupt(f"{path}: the file changed while it was being read")
    return InboxFile(path, *stamp, digest)


def _write(path: Path, text: str) -> None:
    with binary_output(path) as file:
        file.write(text.encode())


def text_of(store: Store, answer_id: str) -> str:
    """An answer's words, or its status where it has none."""
    try:
        record = store.answer_trace(answer_id).record
    except UsageError:
        return "(erased)"
    answer = record["answer"]
    return str(answer["text"]) if answer is not None else str(record["status"])


def mail(summary: Mapping[str, Any], text_of: Callable[[str], str]) -> str:
    """A summary as a person reads it, ready to be mailed: a subject, an empty line, the text.

    Args:
        summary: As stored.
        text_of: An answer's words by its id.
    """
    when = datetime.fromisoformat(summary["fire_time"]).strftime("%Y-%m-%d %H:%M UTC")
    if "error" in summary:
        error = summary["error"]
        return f"Subject: Exhibit {summary['schedule']}: FAILED ({when})\n\n{error['code']}: {error['message']}\n"
    if "audit" in summary:
        found = f"{summary['found']} FINDINGS" if summary["found"] else "nothing was altered"
        lines = [f"Subject: Exhibit {summary['schedule']}: {found} ({when})", "", summary["audit"]]
        lines += [f"  {item['what']}: {item['where']}: {item['detail']}" for item in summary["findings"]]
        return "\n".join(lines) + "\n"
    answers, failures, changed = summary["answers"], summary["failures"], summary["changed"]
    counts = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in answers.items() if count) or "nothing new"
    told = f"{counts}, {len(changed)} changed" if changed else counts
    lines = [f"Subject: Exhibit {summary['schedule']}: {told} ({when})", ""]
    number = summary["documents"]
    lines.append(f"{number} new document{'s' * (number != 1)}: {counts}." if number else "No new documents.")
    if summary["missed"]:
        lines.append(f"{summary['missed']} earlier firings were missed; this one has taken what they would have taken.")
    if failures:
        lines += ["", "Failed:"]
        lines += [f"  {printable(item['document'])}  {printable(item['question_id'])}  {item['code']}" for item in failures]
    if changed:
        lines += ["", "Changed:"]
        lines += [
            f"  {printable(item['document'])}  {printable(item['question_id'])}: "
            f"{printable(text_of(item['before_id']))} -> {printable(text_of(item['answer_id']))}"
            for item in changed
        ]
    if "batch_id" in summary:
        lines += ["", f"All answers: exhibit answers --batch {summary['batch_id']}"]
    return "\n".join(lines) + "\n"
