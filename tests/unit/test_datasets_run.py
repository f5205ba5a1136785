"""Every benchmark's folder through selection, store, worker, method and official score, with a toy model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.evaluation.arms import parse_arm
from pipeline.evaluation.datasets import FORMATS, Scored, summarise
from pipeline.evaluation.jobs import Jobs
from pipeline.evaluation.metrics import LETTERS
from pipeline.evaluation.results import Result, ResultFile
from pipeline.evaluation.runner import run
from pipeline.evaluation.selection import Selection, Wanted, select
from pipeline.store import Store
from pipeline.vlms.catalogue import ModelFolder
from pipeline.work import Worker
from tests.fakes import ToyVlm
from tests.official_folders import RIGHT, build

ARMS = ("plain+max_new_tokens=3", "entropy-gradient/document+max_new_tokens=3")


def answered(part: Selection, folder: Path, *arms: str) -> list[Result]:
    """Every question answered by every arm."""
    vlm, results = ToyVlm(), ResultFile(folder / "results.jsonl")
    (folder / "config.json").write_text("{}")
    with Store.open(f"sqlite:///{folder / 'exhibit.db'}") as store:
        worker = Worker(store, lambda: vlm)
        try:
            model = ModelFolder("toy", folder, "toy", None, vlm.identity.weights_sha256)
            run(Jobs(store, model, worker), part, [parse_arm(arm, "toy") for arm in arms], results)
        finally:
            worker.close()
    return list(results.known.values())


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_two_methods_answer_every_question(name: str, tmp_path: Path) -> None:
    part = select(name, build(name, tmp_path / "data"), None, Wanted())
    found = answered(part, tmp_path, *ARMS)
    assert sorted(result.example for result in found) == sorted(2 * [example.example_id for example in part.examples])
    assert not [result.failure for result in found if result.failure]
    assert len(found) == 2 * len(RIGHT.get(name, part.examples))
    for arm in ARMS:
        scored = [Scored(result.group, result.unit, result.scores) for result in found if result.arm == arm]
        assert 0 <= summarise(name, scored)[part.dataset.metric] <= 1
    boxes = {example.example_id: example.boxes_on(1, (160, 120)) for example in part.examples}
    assert all(list(result.truths) == boxes[result.example] for result in found if result.page_wh == (160, 120))


@pytest.mark.parametrize(
    "arm", ["plain", "plain@80", "plain-tiles", "oracle-crop", "spot-e+eye=vlm+steps=1+group=2+crop_grid=0+extra_samples=0"]
)
def test_options_are_scored_on_what_any_arm_shows(arm: str, tmp_path: Path) -> None:
    part = select("vstar-likelihood", build("vstar-likelihood", tmp_path / "data"), None, Wanted(limit=1))
    result = answered(part, tmp_path, *ARMS[1:] * (arm == "plain-tiles"), f"{arm}+max_new_tokens=3")[-1]
    assert result.failure is None
    assert result.text in LETTERS
    assert set(result.scores) == {"accuracy", "named"}
    # One forward pass for each option at least, and those of the arm's own search before.
    assert result.usage.forward_passes > len(part.examples[0].question.choices)
