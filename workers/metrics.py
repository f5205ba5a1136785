"""What Prometheus reads: a worker's own counters, and, from the chores worker, the database in numbers.

Labels are few and never name a job or a document. The names are those of the alert rules and the dashboard
(ops/prometheus, ops/grafana); a test compares them.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sqlite3
import sys
import threading
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from pipeline.errors import StoreUnavailable
from pipeline.store import JobState
from pipeline.store.database import storage_folder
from pipeline.store.operations import Operations, Transition

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
STAGES = ("queue", "raster", "infer", "persist")
MEGABYTES = (25e6, 50e6, 100e6, 200e6, 400e6, 800e6, 1.6e9, 2.2e9)
REGISTRY = CollectorRegistry()

JOB_SECONDS = Histogram(
    "exhibit_job_duration_seconds", "A unit's time in a stage.", ["stage"], buckets=SECONDS, registry=REGISTRY
)
for _stage in STAGES:
    JOB_SECONDS.labels(_stage)  # so that what has not happened yet is a zero and no gap
BATCH_SIZE = Histogram("exhibit_batch_size", "Jobs of a unit.", buckets=(1, 2, 4, 8, 16), registry=REGISTRY)
FENCED = Counter("exhibit_fenced_commits_total", "Units whose lease had gone to another.", registry=REGISTRY)
EXPIRED = Counter("exhibit_leases_expired_total", "Jobs taken back from workers that were lost.", registry=REGISTRY)
RASTER_FAILURES = Counter(
    "exhibit_raster_failures_total", "Pages that could not be drawn.", ["engine", "class"], registry=REGISTRY
)
CHILD_RSS = Histogram(
    "exhibit_raster_child_max_rss_bytes", "Peak memory of the children that draw.", buckets=MEGABYTES, registry=REGISTRY
)
RECONCILED = Gauge(
    "exhibit_reconciler_last_run_timestamp_seconds", "When the last round of chores ended.", registry=REGISTRY
)
RESTARTS = Counter(
    "exhibit_worker_restarts_total", "Processes that this worker's supervisor has replaced.", ["reason"], registry=REGISTRY
)
AUDIT_FAILURES = Counter(
    "exhibit_audit_verify_failures_total", "What scheduled audits have found altered.", registry=REGISTRY
)
BUILD = Gauge("exhibit_build_info", "What runs.", ["version", "model_rev", "sqlite_version"], registry=REGISTRY)


def serve(port: int | None, restarts: Mapping[str, int], model: str = "") -> None:
    """Serve the counters from a thread; once per process.

    Args:
        port: Where; None serves none.
        model: Key of the model served, with its revision or its weights' digest; empty for chores.
        restarts: How often, and why, this process's predecessors were replaced.
    """
    for reason, count in restarts.items():
        RESTARTS.labels(reason).inc(count)
    BUILD.labels(importlib.metadata.version("exhibit"), model, sqlite3.sqlite_version).set(1)
    if port is not None:
        start_http_server(port, registry=REGISTRY)


class DiskCollector:
    """Asks the disks that fill up: the machine's own and that of a SQLite file or of temporary files."""

    def __init__(self, db_url: str) -> None:
        self._disks = {"root": Path("/"), "storage": storage_folder(db_url)}

    def collect(self) -> Iterator[Metric]:
        """Room and size. In a container, the root's is that of the disk with all containers' volumes."""
        free = GaugeMetricFamily("exhibit_disk_free_bytes", "Room on a disk that we write to.", labels=["disk"])
        size = GaugeMetricFamily("exhibit_disk_size_bytes", "Its size.", labels=["disk"])
        for name, path in self._disks.items():
            try:
                usage = shutil.disk_usage(path)
            except OSError:  # a folder that was taken away is an error of its own
                continue
            free.add_metric([name], usage.free)
            size.add_metric([name], usage.total)
        yield free
        yield size


class DeviceCollector:
    """Asks the model's libraries; where none is loaded, as in the chores worker, there is nothing to tell."""

    def collect(self) -> Iterator[Metric]:
        """What the device's memory has been through."""
        device, torch = sys.modules.get("pipeline.vlms.device"), sys.modules.get("torch")
        full = device.times_full() if device is not None else 0
        yield CounterMetricFamily("exhibit_cuda_oom", "How often the device was too full for a batch.", value=full)
        # Asking for the memory of a GPU that nobody uses would set one up.
        used = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
        reserved = sum(map(torch.cuda.memory_reserved, range(torch.cuda.device_count()))) if torch and used else 0
        yield GaugeMetricFamily("exhibit_gpu_memory_reserved_bytes", "What this process holds of GPUs.", value=reserved)


REGISTRY.register(DeviceCollector())


class DatabaseCollector:
    """Asks the database when Prometheus asks us, so that what it shows is what is."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._lock = threading.Lock()
        self._counted: Tally[Transition] = Tally()
        self._counted_to = 0

    def collect(self) -> Iterator[Metric]:
        """Everything the database knows; nothing while it is away, which is an alert of its own."""
        try:
            figures = self._operations.figures()
            transitions = self._transitions()
        except StoreUnavailable:
            return
        moved = CounterMetricFamily(
            "exhibit_job_transitions", "Jobs that went from one state to another.", labels=["from", "to", "reason"]
        )
        for transition, count in transitions.items():
            moved.add_metric([transition.before, transition.after, transition.reason], count)
        yield moved
        jobs = GaugeMetricFamily("exhibit_jobs", "Jobs by state.", labels=["state"])
        for state, count in figures.jobs.items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily("exhibit_dead_jobs", "Jobs whose attempts are used up.", value=figures.jobs[JobState.DEAD])
        oldest = "Seconds that the first waiting job has been waiting."
        yield GaugeMetricFamily("exhibit_oldest_queued_age_seconds", oldest, value=figures.oldest_waiting_s)
        yield GaugeMetricFamily("exhibit_outbox_pending", "Wake-ups that wait to be sent.", value=figures.outbox)
        name = "exhibit_worker_heartbeat_timestamp_seconds"
        workers = GaugeMetricFamily(name, "When a worker last said that it is there.", labels=["worker", "queue"])
        for labels, seen in figures.workers.items():
            workers.add_metric(labels, seen)
        yield workers
        name = "exhibit_nightly_last_success_timestamp_seconds"
        nights = GaugeMetricFamily(name, "When a schedule's last good run ended.", labels=["task"])
        for task, ended in figures.nights.items():
            nights.add_metric([task], ended)
        yield nights

    def _transitions(self) -> Mapping[Transition, int]:
        """All so far; what can no longer grow is counted once and remembered."""
        with self._lock:
            found = self._operations.transitions(self._counted_to)
            self._counted += found.closed
            self._counted_to = found.closed_to
            return self._counted + found.recent
