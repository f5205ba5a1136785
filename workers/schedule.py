"""``exhibit schedule add|list|show|pause|resume|remove``."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from pipeline.cli.options import settings_of
from pipeline.errors import UsageError

KEPT = (
    *("model", "revision", "device", "dtype", "method", "preset", "set"),
    *("dpi", "max_pixels", "password_file", "locale", "min_certainty", "pages", "questions"),
)


def add(arguments: argparse.Namespace) -> int:
    """Check everything that can be checked today, and store the schedule."""
    from pipeline.store.schedules import Schedules
    from workers.cron import Cron

    settings = settings_of(arguments)
    if re.fullmatch(r"\w[\w.-]*", arguments.name) is None:
        raise UsageError(f"schedule {arguments.name!r}: expected a name of letters, digits, '.', '-' and '_'")
    Cron.parse(arguments.cron, arguments.timezone)
    inbox, kept = _audit(arguments) if arguments.audit else _extraction(arguments)
    if arguments.export is not None:
        kept |= {"export": str(_folder("--export", arguments.export)), "format": arguments.format}
    with Schedules.open(settings.db_url) as schedules:
        schedules.add(arguments.name, arguments.cron, arguments.timezone, inbox, kept)
    print(f"exhibit: schedule {arguments.name} is stored; a chores worker and a beat make it fire", file=sys.stderr)
    return 0


def _extraction(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Folder and options of a nightly extraction."""
    from pipeline.cli.run import read_question_arguments

    if arguments.questions is None or arguments.anchor is not None:
        raise UsageError("--inbox DIR goes with --questions FILE, and without --anchor")
    inbox = _folder("--inbox", arguments.inbox)
    read_question_arguments(argparse.Namespace(question=[], questions=arguments.questions))
    kept = {name: getattr(arguments, name) for name in KEPT}
    kept |= {"questions": str(Path(arguments.questions).resolve()), "question": [], "recursive": False, "force": False}
    return str(inbox), kept


def _folder(option: str, name: str) -> Path:
    folder = Path(name).resolve()
    if not folder.is_dir():
        raise UsageError(f"{option} {name}: there is no such folder")
    return folder


def _audit(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """No folder, and the options of a nightly audit."""
    if arguments.questions is not None:
        raise UsageError("--audit asks no --questions")
    files = {"anchor": arguments.anchor, "password_file": arguments.password_file}
    kept = {name: str(Path(file).resolve()) for name, file in files.items() if file is not None}
    return "", {"audit": True, **kept}


def list_all(arguments: argparse.Namespace) -> int:
    """A line for each schedule."""
    from pipeline.cli.tables import print_rows
    from pipeline.store.schedules import Schedules

    with Schedules.open(settings_of(arguments).db_url) as schedules:
        rows = []
        for schedule in schedules.all():
            last = next(iter(schedules.runs(schedule.name, 1)), None)
            state = "paused" if schedule.paused else "active"
            fired = f"{last.fire_time:%Y-%m-%d %H:%M} {last.state}" if last is not None else "never"
            rows.append((schedule.name, schedule.cron, schedule.timezone, schedule.inbox or "(audit)", state, fired))
    print_rows(("name", "cron", "timezone", "inbox", "state", "last run (UTC)"), rows, "table")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print the last summary, or all as JSON lines."""
    from pipeline.store import Store
    from pipeline.store.schedules import Schedules
    from workers.nightly import mail, text_of

    url = settings_of(arguments).db_url
    with Schedules.open(url) as schedules, Store.open(url) as store:
        runs = schedules.runs(arguments.name)
        summaries = [run.summary for run in runs if run.summary is not None]
        if not summaries:
            if not runs and arguments.name not in {schedule.name for schedule in schedules.all()}:
                raise UsageError(f"no schedule {arguments.name}; `exhibit schedule list` lists them")
            raise UsageError(f"schedule {arguments.name} has no finished run yet")
        if arguments.json:
            for summary in reversed(summaries):
                print(json.dumps(summary, ensure_ascii=False))
        else:
            print(mail(summaries[0], lambda answer_id: text_of(store, answer_id)), end="")
    return 0


def pause(arguments: argparse.Namespace) -> int:
    """Let a schedule rest, or go on."""
    from pipeline.store.schedules import Schedules

    with Schedules.open(settings_of(arguments).db_url) as schedules:
        schedules.pause(arguments.name, paused=arguments.paused)
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """Forget a schedule."""
    from pipeline.store.schedules import Schedules

    with Schedules.open(settings_of(arguments).db_url) as schedules:
        schedules.remove(arguments.name)
    return 0
