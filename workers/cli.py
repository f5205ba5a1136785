"""The commands of many machines: parsers only, so that `exhibit --help` stays fast."""

from __future__ import annotations

import argparse

from pipeline.cli.options import Commands, add_command, add_database, add_model
from pipeline.cli.run import add_setup, add_submission


def add_parsers(commands: Commands) -> None:
    """Add the commands (the entry point of the group ``exhibit.commands``)."""
    _add_batches(commands)
    _add_services(commands)


def _add_batches(commands: Commands) -> None:
    from workers import batches

    submit = add_command(
        commands,
        "submit",
        "hand questions over documents to the workers",
        "exhibit submit invoices/ --questions questions.csv --db postgresql://exhibit@db/exhibit",
    )
    add_submission(submit)
    submit.add_argument("--priority", type=int, metavar="N", default=100, help="lower runs first (default: 100)")
    add_redis(submit)
    submit.set_defaults(handler=batches.submit)

    status = add_command(commands, "status", "say how far the batches are", "exhibit status 3f2a9c01d4e5 --watch")
    status.add_argument("batch", metavar="BATCH", nargs="?", help="batch id (default: a line for each batch)")
    status.add_argument("--watch", action="store_true", help="show progress until the batch is finished")
    status.add_argument("--json", action="store_true", help="print JSON lines")
    add_database(status)
    status.set_defaults(handler=batches.status)

    cancel = add_command(commands, "cancel", "stop a batch and keep what is finished", "exhibit cancel 3f2a9c01d4e5")
    cancel.add_argument("batch", metavar="BATCH")
    add_database(cancel)
    cancel.set_defaults(handler=batches.cancel)

    retry = add_command(commands, "retry", "try failed, dead and cancelled jobs again", "exhibit retry 3f2a9c01d4e5")
    retry.add_argument("batch", metavar="BATCH")
    add_database(retry)
    add_redis(retry)
    retry.set_defaults(handler=batches.retry)


def _add_services(commands: Commands) -> None:
    from workers import services

    worker = add_command(
        commands,
        "worker",
        "work off what was submitted: one process, one model",
        "exhibit worker --queue answer --device cuda:0 --db postgresql://exhibit@db/exhibit --redis redis://redis:6379/0",
    )
    worker.add_argument("--queue", choices=("answer", "chores"), default="answer", help="what to do (default: answer)")
    add_model(worker)
    worker.add_argument("--password-file", metavar="F", help="file with the password of encrypted documents")
    worker.add_argument("--lease", dest="lease_s", type=float, metavar="S", help="without progress for so long, its jobs go")
    worker.add_argument("--metrics-port", type=int, metavar="N", help="serve metrics to Prometheus here (default: nowhere)")
    _add_heartbeat(worker)
    add_database(worker)
    add_redis(worker)
    worker.set_defaults(handler=services.run_worker)

    _add_schedules(commands)
    beat = add_command(commands, "beat", "wake the chores worker at regular times", "exhibit beat --scan 15")
    beat.add_argument("--scan", dest="scan_s", type=float, metavar="S", help="seconds between two rounds (default: 15)")
    _add_heartbeat(beat)
    add_redis(beat)
    beat.set_defaults(handler=services.run_beat)


def _add_heartbeat(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--heartbeat", metavar="FILE", help="file to touch, for `--check`")
    parser.add_argument(
        "--hang", dest="hang_s", type=float, metavar="S", help="seconds without a sign of life that are too many"
    )
    parser.add_argument("--check", action="store_true", help="do not work: exit 0 if --heartbeat is fresh, else 1")


def _add_schedules(commands: Commands) -> None:
    from workers import schedule

    verbs = commands.add_parser("schedule", help="extract every night what is new in a folder").add_subparsers(
        metavar="COMMAND", required=True
    )
    add = add_command(
        verbs,
        "add",
        "ask a question list about what is new in a folder, or audit, at certain times",
        'exhibit schedule add invoices --cron "0 2 * * *" --inbox /data/inbox --questions questions.csv',
    )
    add.add_argument("name", metavar="NAME")
    add.add_argument("--cron", required=True, metavar="LINE", help="minute hour day-of-month month day-of-week")
    add.add_argument("--timezone", default="UTC", metavar="ZONE", help="of the cron line (default: UTC)")
    what = add.add_mutually_exclusive_group(required=True)
    what.add_argument("--inbox", metavar="DIR", help="folder to ask --questions about, as the chores worker sees it")
    what.add_argument("--audit", action="store_true", help="check instead that nothing was altered, as `exhibit audit` does")
    add.add_argument("--questions", metavar="FILE", help="question list: CSV, JSONL or YAML")
    add.add_argument(
        "--export", metavar="DIR", help="write answers, summary and mail of every run there, as the chores worker sees it"
    )
    add.add_argument(
        "--format",
        choices=("jsonl", "csv", "xlsx", "parquet"),
        default="jsonl",
        help="of the exported answers (default: jsonl)",
    )
    add.add_argument("--anchor", metavar="FILE", help="with --audit: its option of this name, as the chores worker sees it")
    add_setup(add)
    add.set_defaults(handler=schedule.add)

    listed = add_command(verbs, "list", "list the schedules", "exhibit schedule list")
    listed.set_defaults(handler=schedule.list_all)
    show = add_command(verbs, "show", "print the last summary, ready to be mailed", "exhibit schedule show invoices")
    show.add_argument("--json", action="store_true", help="all summaries as JSON lines, the last one last")
    show.set_defaults(handler=schedule.show)
    pause = add_command(verbs, "pause", "let a schedule rest", "exhibit schedule pause invoices")
    pause.set_defaults(handler=schedule.pause, paused=True)
    resume = add_command(verbs, "resume", "let a schedule go on", "exhibit schedule resume invoices")
    resume.set_defaults(handler=schedule.pause, paused=False)
    remove = add_command(verbs, "remove", "forget a schedule; what it did stays", "exhibit schedule remove invoices")
    remove.set_defaults(handler=schedule.remove)
    for parser in (show, pause, resume, remove):
        parser.add_argument("name", metavar="NAME")
    for parser in (listed, show, pause, resume, remove):
        add_database(parser)


def add_redis(parser: argparse.ArgumentParser) -> None:
    """Add ``--redis``."""
    parser.add_argument("--redis", dest="redis_url", metavar="URL", help="broker (default: redis://127.0.0.1:6379/0)")
