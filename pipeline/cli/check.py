"""Commands that check or prepare: ``questions check``, ``doctor``, ``db upgrade``."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Callable

from pipeline.cli.options import Commands, add_command, add_database, add_model, settings_of
from pipeline.cli.tables import printable
from pipeline.errors import BrokerUnavailable, EnvironmentProblem, ExhibitError

LEAST_FREE_BYTES = 10**9


def add_parsers(commands: Commands) -> None:
    """Add the commands."""
    questions = commands.add_parser("questions", help="check a question list").add_subparsers(
        metavar="COMMAND", required=True
    )
    check = add_command(
        questions, "check", "read a question list and say what is wrong with it", "exhibit questions check questions.csv"
    )
    check.add_argument("file", metavar="FILE")
    check.set_defaults(handler=check_questions)

    doctor = add_command(commands, "doctor", "say what is installed and whether it works", "exhibit doctor")
    add_model(doctor)
    add_database(doctor)
    doctor.add_argument("--redis", dest="redis_url", metavar="URL", help="broker to check, for machines with workers")
    doctor.set_defaults(handler=run_doctor)

    database = commands.add_parser("db", help="prepare the database").add_subparsers(metavar="COMMAND", required=True)
    upgrade = add_command(
        database, "upgrade", "bring the database to this version's schema", "exhibit db upgrade --db postgresql://…"
    )
    add_database(upgrade)
    upgrade.set_defaults(handler=upgrade_database)


def check_questions(arguments: argparse.Namespace) -> int:
    """Print what a list holds; a malformed one raises with every problem found."""
    from pipeline.questions import read_questions

    questions = read_questions(arguments.file)
    for question in questions:
        cells = (question.question_id, question.type, question.document or "*", question.pages, question.text)
        print("\t".join(map(printable, cells)))
    print(f"exhibit: {len(questions)} questions, no problems", file=sys.stderr)
    return 0


def upgrade_database(arguments: argparse.Namespace) -> int:
    """Migrate to the newest schema."""
    from pipeline.store import upgrade

    upgrade(settings_of(arguments).db_url)
    print("exhibit: the database is at this version's schema", file=sys.stderr)
    return 0


def run_doctor(arguments: argparse.Namespace) -> int:
    """Check each part that a run needs; 3 if any is missing."""
    settings = settings_of(arguments)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", platform.python_version),
        ("packages", _packages),
        ("poppler", _poppler),
        ("database", lambda: _database(settings.db_url)),
        ("disk", lambda: _disk(settings.db_url)),
        ("broker", lambda: _broker(settings.redis_url)),
        ("model", lambda: _model(settings.model, settings.revision, settings.device, settings.dtype)),
        ("self-test", _self_test),
        ("sandbox", _sandbox),
    ]
    healthy = True
    for name, check in checks:
        try:
            print(f"ok    {name:10} {check()}")
        except ExhibitError as error:
            healthy = False
            print(f"FAIL  {name:10} {error}")
    return 0 if healthy else EnvironmentProblem.exit_code


def _packages() -> str:
    names = ("exhibit", "torch", "transformers", "pillow", "sqlalchemy", "celery", "redis")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _poppler() -> str:
    from pipeline.pages import poppler_version

    return poppler_version()


def _database(url: str) -> str:
    from pipeline.store import Store

    with Store.open(url) as store:
        return f"{store.url}: schema is current, {len(store.batches())} batches"


def _disk(url: str) -> str:
    """Room where this machine writes: beside a SQLite file, else in the folder for temporary files."""
    import shutil

    from pipeline.store.database import storage_folder

    folder = storage_folder(url)
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise EnvironmentProblem(f"{folder} has {free / 1e9:.1f} GB left; documents, rasters and crops need at least 1 GB")
    return f"{free / 1e9:.0f} GB free in {folder}"


def _broker(url: str) -> str:
    """Whether Redis answers; without one, everything but the workers works."""
    import redis

    from pipeline.settings import Settings, masked_url

    try:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        if url == Settings().redis_url:
            return "none here; only `submit` and the workers need one"
        raise BrokerUnavailable(f"{masked_url(url)} does not answer: {error}") from error
    return f"{masked_url(url)} answers"


def _model(name: str, revision: str | None, device: str | None, dtype: str | None) -> str:
    from pipeline.vlms.loading import load_vlm

    identity = load_vlm(name, revision=revision, device=device, dtype=dtype).identity
    weights = identity.weights_sha256[:12]
    return f"{identity.name} ({identity.family}) on {identity.device} in {identity.dtype}, weights sha256:{weights}"


def _self_test() -> str:
    """Draw a PDF with one black box at a known place, and find it there."""
    import numpy as np

    from pipeline.pages import rasterize

    page = rasterize(SELF_TEST_PDF, 1, name="self-test")
    rows, cols = np.nonzero(np.asarray(page.image.convert("L")) < 128)
    found = tuple(round(float(value), 1) for value in (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1))
    scale = page.dpi / 72
    expected = tuple(round(edge * scale, 1) for edge in (100, 50, 150, 80))
    if any(abs(a - b) > 1 for a, b in zip(found, expected, strict=True)):
        raise EnvironmentProblem(f"a box drawn at {expected} px appears at {found} px; poppler draws wrongly")
    return f"a box drawn at {expected} px was found at {found} px of a {page.width} x {page.height} raster"


def _sandbox() -> str:
    """What the children that open documents give up here, beside memory and time."""
    from pipeline.pages import PageSource

    with PageSource(SELF_TEST_PDF, "self-test") as source:
        return f"children that open documents have {source.locks()}"


SELF_TEST_PDF = (
    b"%PDF-1.4\n"
    b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    # A page of 300 x 200 points whose CropBox starts at (20, 10); the box is 50 x 30 points, from its top left (100, 50).
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 340 230]/CropBox[20 10 320 210]/Contents 4 0 R>>endobj\n"
    b"4 0 obj<</Length 22>>stream\n"
    b"120 130 50 30 re f    \n"
    b"endstream endobj\n"
    b"trailer<</Root 1 0 R>>\n"
)
