"""What a folder of results says by itself."""

from __future__ import annotations

from pathlib import Path

from pipeline.evaluation.summary import cold_starts, keep_cold_start, summary
from tests.unit.test_evaluation_tables import result

WEIGHTS = "c" * 16


def test_the_fastest_cold_start_of_each_device_is_kept(tmp_path: Path) -> None:
    for device, seconds in (("cpu", 7.0), ("cpu", 5.5), ("cuda", 3.0), ("cpu", 9.0)):
        keep_cold_start(tmp_path, WEIGHTS + "f" * 48, device, seconds)
    keep_cold_start(tmp_path, "d" * 64, "cpu", 1.0)
    told = cold_starts(tmp_path, {WEIGHTS})
    assert [line.rpartition(": ")[2] for line in told] == ["5.5 s on cpu.", "3.0 s on cuda."]
    assert cold_starts(tmp_path / "none", {WEIGHTS}) == []
    assert [path.name for path in tmp_path.iterdir()] == ["cold-starts.json"]


def test_the_pages_are_reported_by_method_and_ablations_by_table(tmp_path: Path) -> None:
    found = [
        *(result("plain", f"q{n}", n < 2) for n in range(4)),
        *(result("entropy-gradient", f"q{n}", n < 3) for n in range(4)),
        *(result("entropy-gradient+regions=1", f"q{n}", n < 1) for n in range(4)),
        *(result("plain", f"q{n}", False, disturbance="noise-1") for n in range(4)),
        *(result("plain", f"f{n}", True, benchmark="f" * 16) for n in range(2)),
        *(result("entropy-gradient+regions=3", f"v{n}", True, "vstar") for n in range(3)),
    ]
    parts = list(summary(found, tmp_path))
    assert [part.splitlines()[0] for part in parts] == [
        "## pages, test",
        "## vstar, test",
        "## pages, test",
        "### Table 4. Number of regions, K",
        "### Hits against right answers over the checkpoints of a training",
    ]
    ours, vstar, foreign, regions, _ = parts
    assert "4 questions." in ours
    assert "| entropy-gradient | 4 | 0.75" in ours
    assert "regions=1" not in ours  # an ablation
    assert "| entropy-gradient+regions=3 | 3 |" in vstar  # of a public dataset all arms
    assert "digest ffffffffffffffff; 2 questions." in foreign
    assert "| 1 |" in regions
