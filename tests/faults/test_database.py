"""Faults 14 to 17, 22 and 24: a database that dies, drops its clients, is locked or full, has another clock or schema."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.errors import StoreUnavailable
from pipeline.store import upgrade
from tests.faults.rig import Rig, pause
from tests.servers import Postgres, Redis

pytestmark = pytest.mark.slow


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """One that a test may kill."""
    with Postgres() as server:
        upgrade(server.new_database())
        yield server


def test_14_postgres_is_killed_while_a_unit_is_stored(own_postgres: Postgres, redis: Redis, tmp_path: Path):
    """The transaction is lost, not the work: the worker waits for the database and stores its results again."""
    assert own_postgres.process is not None
    with Rig(own_postgres.url("test_1"), redis.url(), tmp_path) as rig:
        rig.start_chores()
        batch = rig.submit()
        fault = {"point": "before_commit", "action": "kill-other", "pid": own_postgres.process.pid}
        rig.start_worker(fault=fault, settings={"lease_s": 30.0})
        rig.wait_for_fault()
        own_postgres.process.wait()
        pause(1.0)
        own_postgres.start()
        rig.wait_finished(batch)
        rig.check(batch)
        assert rig.number("SELECT max(attempts) FROM job") <= 2


def test_14_a_worker_that_starts_while_postgres_is_away_waits_for_it(own_postgres: Postgres, redis: Redis, tmp_path: Path):
    """Its supervisor tries again until the database is back."""
    with Rig(own_postgres.url("test_1"), redis.url(), tmp_path) as rig:
        batch = rig.submit(1, 2)
        own_postgres.kill()
        worker = rig.start_worker(supervised=True)
        rig.wait(lambda: '"worker died"' in rig.log())
        own_postgres.start()
        rig.start_chores()
        rig.wait_finished(batch)
        rig.check(batch)
        assert worker.poll() is None


def test_15_all_connections_are_dropped_in_the_middle(rig: Rig, postgres: Postgres):
    """Dropped again and again while two workers work: the pools notice, and nothing is half written."""
    batch = rig.submit(6, 4)
    for _ in range(2):
        rig.start_worker(seconds=0.1)
    rig.wait_running()
    mine = f"datname = '{rig.url.rpartition('/')[2]}' AND pid <> pg_backend_pid()"
    for _ in range(6):
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}")
        pause(0.5)
    rig.wait_finished(batch)
    rig.check(batch)


def test_16_a_locked_sqlite_file_is_waited_for(sqlite_rig: Rig):
    """Another process holds the write lock for eight seconds while two workers work."""
    batch = sqlite_rig.submit(4, 4)
    for _ in range(2):
        sqlite_rig.start_worker(seconds=0.1)
    sqlite_rig.wait_running()
    holder = sqlite3.connect(sqlite_rig.url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    holder.execute("BEGIN IMMEDIATE")
    pause(8.0)
    holder.execute("COMMIT")
    holder.close()
    sqlite_rig.wait_finished(batch)
    sqlite_rig.check(batch)


def test_17_a_full_disk_stops_the_work_and_leaves_the_file_whole(sqlite_rig: Rig):
    """The worker may not grow any file; once there is room, the work goes on."""
    batch = sqlite_rig.submit(3, 4)
    path = Path(sqlite_rig.url.removeprefix("sqlite:///"))
    limit = 4096  # bytes: no write-ahead log has room in that

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    worker = sqlite_rig.start_worker(preexec_fn=full)
    sqlite_rig.wait(lambda: worker.poll() is not None or "store_unavailable" in sqlite_rig.log() or _failed(sqlite_rig))
    assert sqlite_rig.number("SELECT count(*) FROM page_answer") == 0
    worker.kill()
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    sqlite_rig.start_worker()
    sqlite_rig.wait_finished(batch)
    sqlite_rig.check(batch)


@pytest.fixture
def small_disk(postgres: Postgres) -> Iterator[Path]:
    """A disk of a few megabytes on which the server may put a database."""
    with tempfile.TemporaryDirectory(prefix="exhibit-disk-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", name], capture_output=True, check=False)
        if mount.returncode != 0:
            pytest.skip("only root may mount a small disk")
        try:
            (folder / "data").mkdir()
            if postgres.user is not None:
                shutil.chown(folder / "data", postgres.user)
            postgres.execute(f"CREATE TABLESPACE small LOCATION '{folder / 'data'}'")
            yield folder
            postgres.execute("DROP DATABASE on_small WITH (FORCE)")
            postgres.execute("DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def test_17_a_full_disk_under_postgres_stops_the_work_until_there_is_room(
    postgres: Postgres, redis: Redis, small_disk: Path, tmp_path: Path
):
    """A submission says so and stores nothing; a unit is not half stored, and is done when there is room."""
    postgres.execute("CREATE DATABASE on_small TEMPLATE test_1 TABLESPACE small")
    with Rig(postgres.url("on_small"), redis.url(), tmp_path) as rig:
        batch = rig.submit(3, 4)
        filler = small_disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as stream:
            while stream.write(bytes(8192)):
                pass
        with pytest.raises(StoreUnavailable, match="No space left on device"):
            rig.submit(4, 60, name="too much")
        assert rig.number("SELECT count(*) FROM batch") == 1
        rig.start_worker(supervised=True)
        rig.start_chores()
        rig.wait(lambda: "StoreUnavailable" in rig.log() or bool(rig.problems) or rig.store.finished(batch))
        filler.unlink()
        again = rig.submit(4, 60, name="too much")
        rig.wait_finished(batch, again)
        rig.check(batch, again)


def _failed(rig: Rig) -> bool:
    return '"turn failed"' in rig.log()


@pytest.mark.parametrize("skew_s", [-600, 600])
def test_22_a_worker_with_another_clock(rig: Rig, skew_s: int):
    """Ten minutes off either way: leases go by the database's clock."""
    batch = rig.submit()
    # A lease of three seconds may end by itself on a busy machine, and here it counts that none does.
    patient = {"lease_s": 30.0}
    rig.start_worker(environment={"FAULT_CLOCK": str(skew_s)}, seconds=0.1, settings=patient)
    rig.start_worker(seconds=0.1, settings=patient)
    rig.wait_finished(batch)
    rig.check(batch)
    assert rig.number("SELECT max(attempts) FROM job") == 1


@pytest.mark.parametrize("revision", ["0000", "9999"])
def test_24_another_schema_is_refused(rig: Rig, revision: str):
    """Older or newer than the code: the worker ends with exit 3, says what to do, and has changed nothing."""
    batch = rig.submit()
    (known,) = rig.sql("SELECT version_num FROM alembic_version")[0]
    rig.sql("UPDATE alembic_version SET version_num = :revision RETURNING version_num", revision=revision)
    worker = rig.start_worker(supervised=True)
    assert worker.wait(60) == 3
    assert "exhibit db upgrade" in rig.log()
    assert rig.states() == {"pending": 12}
    rig.sql("UPDATE alembic_version SET version_num = :revision RETURNING version_num", revision=known)
    rig.start_worker()
    rig.wait_finished(batch)
    rig.check(batch)


def test_16_four_writers_on_sqlite(sqlite_rig: Rig):
    """Claims and results of two workers, chores and submissions at once: everybody waits for his turn."""
    batches: list[str] = []
    for _ in range(2):
        sqlite_rig.start_worker()
    threads = [
        threading.Thread(target=lambda n=number: batches.append(sqlite_rig.submit(2, 3, name=f"batch {n}", force=True)))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sqlite_rig.wait_finished(*batches)
    sqlite_rig.check(*batches)
