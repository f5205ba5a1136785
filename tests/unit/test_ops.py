"""Compose file, images, alerts and dashboard: as strict as we say, and about things that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from workers.metrics import REGISTRY, STAGES, DatabaseCollector, DiskCollector

ROOT = Path(__file__).parents[2]
ENDS = {"migrate", "cli"}
METRIC = re.compile(r"\bexhibit_[a-z_]+")


class Strict(yaml.SafeLoader):
    """YAML that refuses a key given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if key.value != "<<"]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key is given twice in {keys}"
        return super().construct_mapping(node, deep)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.load((ROOT / "docker-compose.yml").read_text(), Strict)


def known_metrics() -> set[str]:
    """All names that our processes export, those of the database included."""
    from types import SimpleNamespace

    from pipeline.store import JobState
    from pipeline.store.operations import Figures, Transition, Transitions

    moved = Transitions(Counter(), 0, Counter([Transition("pending", "running", "claimed")]))
    figures = Figures(dict.fromkeys(JobState, 0), 0.0, 0, {("w", "answer"): 0.0}, {"n": 0.0})
    operations = SimpleNamespace(figures=lambda: figures, transitions=lambda _: moved)
    database = DatabaseCollector(operations)  # type: ignore[arg-type]
    names = set()
    for metric in (*REGISTRY.collect(), *database.collect(), *DiskCollector("sqlite:///exhibit.db").collect()):
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric.type, [""])
        names |= {metric.name + ending for ending in endings}
    return names


def test_the_compose_file_is_one(compose: dict[str, Any]):
    schema = json.loads((ROOT / "tests" / "golden" / "compose_spec.json").read_text())
    plain = {key: value for key, value in compose.items() if not key.startswith("x-")}
    jsonschema.Draft7Validator(schema).validate(plain)
    broken = json.loads(json.dumps(plain))
    broken["services"]["redis"]["helthcheck"] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(broken)


def test_every_service_is_hardened(compose: dict[str, Any]):
    """Not root, no capability, nothing to write but what it must, bounded, pinned, and looked after."""
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not re.match(r"(0|root)\b", service["user"]), name
        assert {"mem_limit", "cpus", "pids_limit", "healthcheck", "logging"} <= set(service), name
        assert "privileged" not in service, name
        assert "network_mode" not in service, name
        assert service["restart"] == ("no" if name in ENDS else "unless-stopped"), name
        assert (service["healthcheck"] == {"disable": True}) == (name in ENDS), name
        pinned = re.fullmatch(r"[a-z/]+:v?\d+\.\d+[^@]*@sha256:[0-9a-f]{64}", service["image"])
        assert service["image"] in ("exhibit:cpu", "exhibit:cuda") or pinned, name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        assert "docker.sock" not in json.dumps(service), name


def test_services_and_what_they_need(compose: dict[str, Any]):
    services = compose["services"]
    wanted = {"migrate", "worker-gpu", "worker-cpu", "chores", "beat", "cli", "redis", "postgres", "prometheus", "grafana"}
    assert set(services) == wanted
    assert compose["networks"]["backend"]["internal"] is True
    for name in ("worker-cpu", "worker-gpu", "chores", "beat", "cli"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    for name in ("worker-cpu", "worker-gpu", "chores", "beat"):
        assert "--check" in services[name]["healthcheck"]["test"], "a busy worker cannot answer a message"
        assert services[name]["healthcheck"]["test"][-3] == services[name]["command"][-1], "the file that it touches"
    for name in ("worker-cpu", "worker-gpu", "chores"):
        assert services[name]["stop_grace_period"].endswith("m")
    for name, service in services.items():
        for secret in service.get("secrets", []):
            assert secret in compose["secrets"], name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("./ops/"):
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert volume.endswith(":ro"), f"{name}: {source}"
            elif not source.startswith("."):
                assert source in compose["volumes"], name


def test_whoever_names_a_file_and_whoever_opens_it_at_night_see_the_same(compose: dict[str, Any]):
    """`schedule add` stores the paths of inbox, questions and exports; the chores worker opens them."""
    services = compose["services"]
    assert services["cli"]["volumes"] == services["chores"]["volumes"]
    targets = {volume.split(":")[1]: volume.endswith(":ro") for volume in services["chores"]["volumes"]}
    assert targets == {"/work/documents": True, "/inbox": True, "/exports": False, "/anchors": False}


def test_no_secret_is_in_the_environment(compose: dict[str, Any]):
    """Secrets come by file, and only files say where they are."""
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|_URL|SECRET|TOKEN", key):
                assert key.endswith("_FILE"), f"{name}: {key}"
                assert value.startswith("/run/secrets/"), f"{name}: {key}"


def test_commands_in_the_compose_file_are_ours(compose: dict[str, Any]):
    """Each is taken by our own parser."""
    from pipeline.cli import build_parser

    for name, service in compose["services"].items():
        if service["image"].startswith("exhibit:"):
            build_parser().parse_args(service["command"])
            test = service["healthcheck"].get("test")
            if test is not None and "--check" in test:
                build_parser().parse_args(test[2:])
            assert name


@pytest.mark.parametrize("file", ["Dockerfile", "Dockerfile.cuda"])
def test_images_are_small_and_run_as_nobody(file: str):
    """Two stages, pinned, no compiler in the second, a number for a user; what is copied exists and is let through."""
    lines = (ROOT / "ops" / "docker" / file).read_text().splitlines()
    assert sum(line.startswith("FROM ") for line in lines) == 2
    assert any(re.fullmatch(r"ARG PYTHON=python:\d+\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", line) for line in lines)
    assert "USER 10001:10001" in lines
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, source
    assert not any("gcc" in line or "build-essential" in line for line in lines)


def test_alerts_and_dashboard_are_about_metrics_that_exist():
    known = known_metrics()
    alerts = yaml.safe_load((ROOT / "ops" / "prometheus" / "alerts.yml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    dashboard = json.loads((ROOT / "ops" / "grafana" / "exhibit.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for expression in [rule["expr"] for rule in rules] + panels:
        assert set(METRIC.findall(expression)) <= known, expression
    shown = {name for expression in panels for name in METRIC.findall(expression)}
    assert len(shown) >= 12


def test_metrics_have_the_labels_that_the_dashboard_groups_by():
    """Stages are there before anything has happened; a page's failure says which engine and why."""
    sampled = {metric.name: metric for metric in REGISTRY.collect()}
    stages = {sample.labels["stage"] for sample in sampled["exhibit_job_duration_seconds"].samples}
    assert stages == set(STAGES) == {"queue", "raster", "infer", "persist"}
    assert sampled["exhibit_raster_child_max_rss_bytes"].type == "histogram"
    disks = [metric for metric in DiskCollector("sqlite:////tmp/exhibit.db").collect()]
    assert [[sample.labels["disk"] for sample in metric.samples] for metric in disks] == [["root", "storage"]] * 2
    free, size = ([sample.value for sample in metric.samples] for metric in disks)
    assert all(0 <= a <= b for a, b in zip(free, size, strict=True))


def test_every_alert_has_a_heading_and_a_test():
    alerts = yaml.safe_load((ROOT / "ops" / "prometheus" / "alerts.yml").read_text())
    tests = (ROOT / "ops" / "prometheus" / "alerts_test.yml").read_text()
    runbook = (ROOT / "ops" / "runbook.md").read_text()
    for rule in alerts["groups"][0]["rules"]:
        name = rule["alert"]
        assert rule["annotations"]["runbook"] == f"ops/runbook.md#{name.lower()}"
        assert f"## {name}\n" in runbook
        assert "exp_annotations:\n              summary: " in tests
        assert tests.count(f"alertname: {name}\n") >= 1
        assert f"alertname: {name}, exp_alerts: []" in tests


def test_promtool_agrees():
    """The rules' own tests, where promtool is installed."""
    promtool = shutil.which("promtool") or shutil.which("promtool", path=Path(sys.executable).parent)
    if promtool is None:
        pytest.skip("promtool is not there; ops/setup test fetches it where apt-get can")
    subprocess.run([promtool, "test", "rules", "alerts_test.yml"], cwd=ROOT / "ops" / "prometheus", check=True)
