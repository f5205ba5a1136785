"""Submitting, watching, cancelling and retrying a batch from the command line; with Redis, and without."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import MethodConfig
from pipeline.errors import UsageError
from pipeline.presets import METHODS, method_config
from pipeline.records import Failure
from pipeline.store import Store
from pipeline.store.operations import Operations
from tests.acceptance.conftest import Exhibit, command, environment
from tests.documents import pdf
from tests.servers import Redis, free_port
from tests.stores import DATE, TOTAL, batch, document, pages_of, work_off
from tests.tiny_models import build
from workers.app import Bell, answer_queue, create_app
from workers.dispatch import dispatch, wake_for_waiting

NOWHERE = f"redis://:secret@127.0.0.1:{free_port()}/0"


@pytest.fixture
def bell(redis: Redis) -> Bell:
    flush(redis)
    return Bell(create_app(redis.url()), redis.url())


def flush(redis: Redis) -> None:
    client(redis).flushall()


def client(redis: Redis):
    import redis as library

    return library.Redis(port=redis.port)


def wakeups(redis: Redis, model_key: str) -> int:
    return client(redis).llen(f"exhibit:{answer_queue(model_key)}")


@pytest.fixture
def exhibit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    (tmp_path / "invoice.pdf").write_bytes(pdf(["Invoice number: 4711"]))

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(arguments), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build("embedded", tmp_path_factory.mktemp("tiny")))


def test_submit_without_redis_stores_the_batch_and_its_wakeup(exhibit, model: str, tmp_path: Path):
    """The batch id comes back at once, the outbox keeps the wake-up, and no password is shown."""
    arguments = (
        "submit",
        "invoice.pdf",
        "-q",
        "What is the number?",
        "--model",
        model,
        "--redis",
        NOWHERE,
        "--priority",
        "5",
    )
    started = time.monotonic()
    first = exhibit(*arguments)
    assert time.monotonic() - started < 30
    assert "stored" in first.stderr
    assert "secret" not in first.stderr + first.stdout
    again = exhibit(*arguments)
    assert again.stdout == first.stdout
    assert "submitted before" in again.stderr
    url = f"sqlite:///{tmp_path / 'exhibit.db'}"
    with Operations.open(url) as operations, Store.open(url) as store:
        assert operations.outbox_size() == 1
        (waiting,) = operations.waiting()
        assert (waiting.jobs, waiting.model_name) == (1, model)
        assert store.progress(first.stdout.strip()).answers_open == 1
    shown = json.loads(exhibit("status", first.stdout.strip(), "--json").stdout)
    assert (shown["finished"], shown["jobs"]["pending"]) == (False, 1)
    assert exhibit("cancel", first.stdout.strip()).stdout == ""
    assert "finished" in exhibit("status", first.stdout.strip(), "--json").stdout
    assert "1 jobs wait again" in exhibit("retry", first.stdout.strip(), "--redis", NOWHERE).stderr


@pytest.mark.parametrize(
    ("method", "preset", "settings"),
    [
        ("vicrop", "official", {"variant": "grad-att", "block": "1"}),
        ("zoom-eye", None, {"depth": "2"}),
        ("spot-e", None, {"steps": "2", "eye": "vlm"}),
    ],
)
def test_a_batch_is_stored_with_its_methods_whole_configuration(
    exhibit: Exhibit, model: str, tmp_path: Path, method: str, preset: str | None, settings: dict[str, str]
) -> None:
    """What a worker will be handed is what the names on the command line stand for, for this model's family."""
    named = ["--preset", preset] if preset else []
    changes = [item for key, value in settings.items() for item in ("--set", f"{key}={value}")]
    arguments = ("submit", "invoice.pdf", "-q", "What is the number?", "--model", model, "--redis", NOWHERE)
    batch_id = exhibit(*arguments, "--method", method, *named, *changes).stdout.strip()
    expected = method_config(method, "embedded", preset, settings)
    with Store.open(f"sqlite:///{tmp_path / 'exhibit.db'}") as store:
        (listed,) = store.batches()
        unit = store.claim("w")
    assert unit is not None
    assert listed.batch_id == batch_id
    assert unit.setup == listed.setup
    assert (unit.setup.method, unit.setup.preset) == (method, preset or "document")
    assert MethodConfig.from_dict(unit.setup.config) == expected
    assert unit.setup.config_sha256 == expected.sha256


def test_an_unknown_method_is_told_with_the_nearest_known_one_first(exhibit: Exhibit, model: str, tmp_path: Path) -> None:
    """Nothing is stored, and the exit code is that of wrong usage."""
    asked = ("submit", "invoice.pdf", "-q", "What is the number?", "--model", model, "--redis", NOWHERE)
    done = exhibit(*asked, "--method", "spot", code=UsageError.exit_code)
    found = re.search(r"unknown method 'spot'; known: (.+)", done.stderr)
    assert found is not None
    known = found[1].split(", ")
    assert known[0] == "spot-e"
    assert sorted(known) == sorted(METHODS)
    assert done.stdout == ""
    assert not (tmp_path / "exhibit.db").exists()


def test_commands_that_cannot_work_say_why(exhibit):
    """A hub model without its commit, a watch without a batch, a batch that is not there."""
    assert "--revision" in exhibit("submit", "invoice.pdf", "-q", "x?", "--model", "org/model", code=2).stderr
    assert "name a batch" in exhibit("status", "--watch", code=2).stderr
    assert "no batch" in exhibit("cancel", "nope", code=2).stderr


def test_the_outbox_is_sent_once_redis_is_back(store: Store, store_url: str, redis: Redis, bell: Bell):
    """Nothing is lost while Redis is away; one wake-up a model is enough, however often it is announced."""
    from pipeline.errors import BrokerUnavailable

    for name in ("a.pdf", "b.pdf", "c.pdf"):
        store.submit(batch([document(name)]), pages_of)
    with Operations.open(store_url) as operations:
        with pytest.raises(BrokerUnavailable, match=r"redis://:\*\*\*@127\.0\.0\.1"):
            dispatch(operations, Bell(create_app(NOWHERE), NOWHERE))
        assert operations.outbox_size() == 3
        assert dispatch(operations, bell) == 3
        assert operations.outbox_size() == 0
        (waiting,) = operations.waiting()
        assert (waiting.jobs, wakeups(redis, waiting.model_key)) == (3, 1)
        flush(redis)
        assert wake_for_waiting(operations, bell) == 3
        assert wakeups(redis, waiting.model_key) == 1
        work_off(store)
        assert wake_for_waiting(operations, bell) == 0


def test_a_message_holds_no_data(store: Store, store_url: str, redis: Redis, bell: Bell):
    """A wake-up names no document, question or answer."""
    store.submit(batch([document("a.pdf")]), pages_of)
    with Operations.open(store_url) as operations:
        dispatch(operations, bell)
        (waiting,) = operations.waiting()
    (message,) = client(redis).lrange(f"exhibit:{answer_queue(waiting.model_key)}", 0, 9)
    body = json.loads(message)
    assert body["content-type"] == "application/json"
    assert body["headers"]["argsrepr"] == "()"
    assert "total" not in message.decode()


def test_retry_revives_what_failed(store: Store, store_url: str):
    """Failed and dead jobs wait again with all their attempts, and their batch is open again."""
    receipt = store.submit(batch([document("a.pdf")], [TOTAL, DATE]), pages_of)
    unit = store.claim("w")
    assert unit is not None
    store.fail(unit.jobs, Failure("page_corrupt", "broken", retryable=False))
    assert store.progress(receipt.batch_id).finished
    assert store.retry(receipt.batch_id) == 2
    work_off(store)
    assert store.progress(receipt.batch_id).answers == {"answered": 2}


MEMORY = """
import resource, sys
from pathlib import Path
from pipeline.records import Question
from pipeline.store import Store
from tests.stores import batch, document, pages_of
documents = [document(f"{number}.pdf", content=str(number).encode()) for number in range(int(sys.argv[2]))]
questions = [Question(f"q{number}", f"What is number {number}?") for number in range(100)]
with Store.open(sys.argv[1]) as store:
    store.submit(batch(documents[:10], questions), pages_of)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    receipt = store.submit(batch(documents, questions), pages_of)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(receipt.jobs, (after - before) // 1024)
"""


@pytest.mark.slow
def test_a_hundred_thousand_jobs_take_flat_memory(tmp_path: Path):
    """1000 documents by 100 questions grow the process by less than 100 MB."""
    arguments = [sys.executable, "-c", MEMORY, f"sqlite:///{tmp_path / 'big.db'}", "1000"]
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=280, check=True, cwd=Path(__file__).parents[2], env=environment()
    )
    jobs, grown_mb = map(int, done.stdout.split())
    assert jobs == 100_000
    assert grown_mb < 100, f"{grown_mb} MB"
