"""The benchmark's folder, the arms and the resumable runner, on small drawn pages and a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from pipeline.answer import answer_page
from pipeline.config import GroundingConfig, RegionConfig, SaliencyConfig
from pipeline.errors import EnvironmentProblem, PromptTooLong, UsageError
from pipeline.evaluation.arms import (
    CONTROLS,
    DEFAULT_ARMS,
    MEASURED_BY_REFERENCE,
    REFERENCE,
    Arm,
    Shown,
    parse_arm,
    tile_boxes,
    with_controls,
)
from pipeline.evaluation.fit import fit_regions
from pipeline.evaluation.jobs import Jobs
from pipeline.evaluation.pages import Benchmark, read_benchmark
from pipeline.evaluation.results import Result, ResultFile, read_results
from pipeline.evaluation.runner import run
from pipeline.evaluation.selection import Selection, Shard, Wanted, document_name, select
from pipeline.geometry import Box
from pipeline.pages import PageSource
from pipeline.store import Store
from pipeline.vlms.base import VisualTokens
from pipeline.vlms.catalogue import ModelFolder
from pipeline.work import Worker
from tests.fakes import ToyVlm, encoded, make_page
from tests.official_folders import build

TRUTH = (30, 40, 60, 50)
CHEAP = "+max_new_tokens=3"


def drawing(seed: int) -> Image.Image:
    image = Image.new("RGB", (96, 128), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle(TRUTH, fill=(0, 40 * seed % 255, 90))
    pen.line((5, 10 * seed % 120, 90, 100), fill="grey", width=2)
    return image


def record(number: int, task: str, document: str, **changes: object) -> dict[str, object]:
    return {
        "id": f"test/{task}/clean/{number:02}",
        "part": "test",
        "task": task,
        "quality": "clean",
        "document": document,
        "question": f"what is {task} {number}",
        "type": "text",
        "choices": [],
        "answers": ["w7"],
        "evidence": [{"page": 1, "box": list(TRUTH)}],
        "answerable": True,
    } | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pages with two questions each, one of them without an answer, and a document of four pages."""
    drawing(1).save(tmp_path / "one.png")
    drawing(2).save(tmp_path / "two.png")
    drawing(3).save(tmp_path / "four.pdf", save_all=True, append_images=[drawing(n) for n in (4, 5, 6)], resolution=200)
    records = [
        record(1, "field", "one.png"),
        record(1, "not-found", "one.png", answers=[], evidence=[], answerable=False),
        record(2, "field", "two.png", quality="poor", id="test/field/poor/02"),
        record(1, "cell", "two.png", part="validation", id="validation/cell/clean/01"),
        record(1, "pages", "four.pdf", evidence=[{"page": 3, "box": list(TRUTH)}]),
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    return tmp_path


@pytest.fixture
def benchmark(folder: Path) -> Benchmark:
    return read_benchmark(folder)


def arms(*names: str) -> list[Arm]:
    return [parse_arm(name + CHEAP, "toy") for name in names]


class TestBenchmark:
    def test_items_are_read_as_written(self, benchmark: Benchmark) -> None:
        item = benchmark.items[0]
        assert (item.id, item.part, item.task, item.quality) == ("test/field/clean/01", "test", "field", "clean")
        assert item.evidence[0].box.xyxy == TRUTH
        assert item.answerable
        assert not benchmark.items[1].answerable

    def test_the_digest_covers_questions_and_documents(self, folder: Path, benchmark: Benchmark) -> None:
        assert read_benchmark(folder).sha256 == benchmark.sha256
        with (folder / "two.png").open("ab") as file:
            file.write(b"\0")
        assert read_benchmark(folder).sha256 != benchmark.sha256

    def test_a_missing_benchmark_says_how_to_build_it(self, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentProblem, match=r"python -m ops\.bench_pages"):
            read_benchmark(tmp_path / "none")

    def test_a_list_of_another_version_is_refused(self, folder: Path) -> None:
        (folder / "questions.jsonl").write_text('{"id": "x"}\n')
        with pytest.raises(EnvironmentProblem, match="build it again"):
            read_benchmark(folder)

    def test_selections(self, benchmark: Benchmark) -> None:
        assert [item.task for item in benchmark.select("test").items] == ["field", "not-found", "field", "pages"]
        (one,) = benchmark.select("test", {"test/field/poor/02", "validation/cell/clean/01"}).items
        assert one.quality == "poor"
        assert benchmark.select("validation").sha256 == benchmark.sha256
        with pytest.raises(UsageError, match="no such questions of the test part"):
            benchmark.select("test", {"validation/cell/clean/01"})


class TestArms:
    def test_names(self) -> None:
        arm = parse_arm("entropy-gradient/paper+sigma_rows=0.5+regions=3", "toy")
        assert isinstance(arm.config.search, GroundingConfig)
        assert (arm.config.search.region.sigma_rows, arm.config.search.zoom.regions) == (0.5, 3)
        assert parse_arm("plain@800", "toy").long_side_px == 800
        assert [parse_arm(name, "toy").control for name in CONTROLS] == list(CONTROLS)

    @pytest.mark.parametrize(
        "name", ["plane", "plain@many", "oracle-crop@800", "plain+colour=red", REFERENCE + "+leaf", "plain/x"]
    )
    def test_wrong_names_are_refused(self, name: str) -> None:
        with pytest.raises(UsageError):
            parse_arm(name, "toy")

    def test_all_are_asked_in_the_same_words(self) -> None:
        assert {parse_arm(name, "toy").config.answer.prompt for name in DEFAULT_ARMS} == {"document"}
        assert parse_arm("entropy-gradient/paper+prompt=paper", "toy").config.answer.prompt == "paper"

    def test_methods_are_never_without_their_controls(self) -> None:
        assert with_controls(["spot-e/paper+steps=2"], tiles=False)[1:] == ["spot-e/paper+steps=2+update=false"]
        assert with_controls(["spot-e", "plain"], tiles=True) == ["spot-e", "spot-e+update=false", "plain"]
        assert with_controls(["spot-e+update=false"], tiles=True) == ["spot-e+update=false"]
        assert with_controls(["plain-tiles", "plain", REFERENCE], tiles=True) == ["plain-tiles", "plain", REFERENCE]
        assert with_controls([REFERENCE, "plain"], tiles=True) == [REFERENCE, "plain-tiles", "plain"]
        assert with_controls([REFERENCE], tiles=False) == [REFERENCE]

    def test_digests_tell_arms_apart_but_not_their_names(self) -> None:
        digests = [parse_arm(name, "toy").sha256 for name in (*DEFAULT_ARMS, "plain@800")]
        assert len(set(digests)) == len(digests)
        assert parse_arm("plain+prompt=document", "toy").sha256 == parse_arm("plain", "toy").sha256


def selection(folder: Path, split: str = "test", **wanted: Any) -> Selection:
    return select("pages", folder, split, Wanted(**wanted))


@contextmanager
def jobs(folder: Path, vlm: ToyVlm, *, here: bool = True) -> Iterator[Jobs]:
    """Jobs in a database beside the results, worked off by a worker of our own."""
    with Store.open(f"sqlite:///{folder / 'exhibit.db'}") as store:
        worker = Worker(store, lambda: vlm)
        (folder / "config.json").write_text("{}")
        model = ModelFolder("toy", folder, "toy", None, vlm.identity.weights_sha256)
        try:
            yield Jobs(store, model, worker if here else None)
        finally:
            worker.close()


def answered(
    part: Selection, path: Path, *names: str, vlm: ToyVlm | None = None, progress: Any = lambda result: None
) -> dict[tuple[str, str], Result]:
    results = ResultFile(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with jobs(path.parent, vlm or ToyVlm()) as handed:
        run(handed, part, arms(*names), results, progress)
    return {(result.arm.removesuffix(CHEAP), result.example): result for result in results.known.values()}


class TestSelection:
    def test_parts(self, folder: Path) -> None:
        assert [example.group for example in selection(folder).examples] == ["field", "not-found", "field", "pages"]
        assert [example.example_id for example in selection(folder, quality="poor").examples] == ["test/field/poor/02"]
        # A limit takes one of each group before the second of any.
        assert [example.group for example in selection(folder, limit=3).examples] == ["field", "not-found", "pages"]
        assert [example.group for example in selection(folder, slice_size=3).examples] == ["field", "not-found", "pages"]
        assert selection(folder, limit=1).sha256 == selection(folder).sha256 == read_benchmark(folder).sha256
        with pytest.raises(UsageError, match="a multiple of 3"):
            selection(folder, slice_size=4)
        with pytest.raises(UsageError, match="too few questions for a slice of 2"):
            selection(folder, slice_size=6)
        with pytest.raises(UsageError, match="no such questions"):
            selection(folder, quality="fair")
        with pytest.raises(UsageError, match="--data"):
            select("none", None, None, Wanted())

    def test_shards_part_the_documents(self, folder: Path) -> None:
        parts = []
        for number in (1, 2, 3):
            with suppress(UsageError):
                parts.append(selection(folder, shard=Shard(number, 3)))
        ids = [example.example_id for part in parts for example in part.examples]
        assert sorted(ids) == sorted(example.example_id for example in selection(folder).examples)
        documents = [{document_name(example) for example in part.examples} for part in parts]
        assert sum(map(len, documents)) == 3

    def test_shards_have_about_as_many_questions(self) -> None:
        questions = {"a": 4, "b": 3, "c": 2, "d": 2, "e": 1}
        parts = [Shard(number, 2).documents(questions) for number in (1, 2)]
        assert parts == [{"a", "d"}, {"b", "c", "e"}]
        assert Shard(3, 3).documents({"a": 1}) == set()

    def test_a_few_questions_are_about_many_documents(self, tmp_path: Path) -> None:
        records = []
        for document in range(4):
            drawing(document).save(tmp_path / f"{document}.png")
            for number in range(3):
                records += [
                    record(number, task, f"{document}.png", id=f"test/{task}/clean/{document}-{number}")
                    for task in ("field", "cell")
                ]
        (tmp_path / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
        for wanted in ({"limit": 8}, {"slice_size": 8}):
            examples = selection(tmp_path, **wanted).examples
            for task in ("field", "cell"):
                assert len({document_name(one) for one in examples if one.group == task}) == 4
        order = [[one.example_id for one in selection(tmp_path, limit=limit).examples] for limit in (2, 4, 8)]
        assert set(order[0]) < set(order[1]) < set(order[2])  # a larger limit goes on where a smaller one stopped
        assert order[2] == [str(line["id"]) for line in records if line["id"] in order[2]]  # in the dataset's order

    def test_a_limit_counts_questions_and_cuts_no_rotations(self, tmp_path: Path) -> None:
        folder = build("mmbench-circular", tmp_path / "data")
        for limit in (1, 2):
            examples = select("mmbench-circular", folder, None, Wanted(limit=limit)).examples
            assert len({example.unit for example in examples}) == limit
            for example in examples:
                turns = [other for other in examples if other.unit == example.unit]
                assert len(turns) == len(example.question.choices) > 1

    @pytest.mark.parametrize("name", ["vstar", "mmmu"])
    def test_digest_and_shards_do_not_depend_on_where_a_dataset_lies(self, name: str, tmp_path: Path) -> None:
        places = [build(name, tmp_path / place) for place in ("here", "elsewhere/deeper")]
        wholes = [select(name, place, None, Wanted()) for place in places]
        assert wholes[0].sha256 == wholes[1].sha256
        halves = [select(name, place, None, Wanted(shard=Shard(1, 2))) for place in places]
        assert len({tuple(example.example_id for example in half.examples) for half in halves}) == 1
        assert 0 < len(halves[0].examples) < len(wholes[0].examples)

    @pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", ""])
    def test_no_shard(self, text: str) -> None:
        with pytest.raises(UsageError, match="i/n"):
            Shard.parse(text)


class TestRun:
    def test_every_arm_answers_every_question(self, folder: Path, tmp_path: Path) -> None:
        part = selection(folder, quality="clean", limit=2)
        names = (REFERENCE, "plain", "plain-tiles", "oracle-crop", "random-map")
        found = answered(part, tmp_path / "out" / "results.jsonl", *names)
        assert len(found) == 5 * 2
        result = found["oracle-crop", "test/field/clean/01"]
        (box,) = result.regions
        assert box.x0 < TRUTH[0]  # a cell of margin
        assert box.contains(45, 45)
        assert (result.page, result.page_wh) == (1, (96, 128))
        assert [truth.xyxy for truth in result.truths] == [TRUTH]
        assert result.usage.forward_passes == 2  # the answer, and its score against a refusal
        assert found["oracle-crop", "test/not-found/clean/01"].regions == ()
        grounded = found[REFERENCE, "test/field/clean/01"]
        assert grounded.rounds >= 1
        assert grounded.usage.backward_passes >= 1
        assert grounded.inside is not None
        assert grounded.pointed is not None
        assert 0 < grounded.inside_area < 1  # type: ignore[operator]
        assert set(grounded.scores) == {"anls", "exact"}
        assert not found["plain", "test/not-found/clean/01"].answerable
        assert found["random-map", "test/field/clean/01"].usage.backward_passes == 0
        assert found["plain", "test/field/clean/01"].inside is None

    def test_a_job_and_the_function_behind_it_answer_alike(self, folder: Path, tmp_path: Path) -> None:
        part = selection(folder, quality="clean", limit=1)
        (result,) = answered(part, tmp_path / "out" / "results.jsonl", REFERENCE).values()
        vlm = ToyVlm()
        with PageSource((folder / "one.png").read_bytes(), "one.png") as source:
            (arm,) = arms(REFERENCE)
            (answer,) = answer_page(vlm, source.page(1), [part.examples[0].question], arm.config)
        assert result.text == (None if answer.not_found else answer.text)
        assert result.regions == tuple(evidence.box for evidence in answer.evidence)
        assert result.usage.backward_passes == answer.usage.backward_passes
        assert result.first_regions == tuple(region.box for region in answer.steps[0].regions)

    def test_anchor_disruption_is_measured_without_an_answer(self, folder: Path, tmp_path: Path) -> None:
        part = selection(folder, quality="clean", limit=1)
        name = "disruption+eye=vlm+steps=1+group=2+crop_grid=0+extra_samples=0"
        (result,) = answered(part, tmp_path / "out" / "results.jsonl", name).values()
        assert result.disruption is not None
        assert result.disruption >= 0
        assert (result.text, result.failure, result.scores) == (None, None, {})
        assert result.usage.forward_passes > 3

    def test_the_rival_methods_are_arms_like_any_other(self, folder: Path, tmp_path: Path) -> None:
        # The toy's words begin yes and no alike, so ZoomEye cannot ask it.
        rivals = ("vicrop+block=1+base_px=32", "spot-e+eye=vlm+steps=1+group=2+crop_grid=0+extra_samples=0")
        found = answered(selection(folder, quality="clean", limit=1), tmp_path / "out" / "results.jsonl", *rivals)
        assert {arm for arm, _ in found} == set(rivals)
        for (arm, _), result in found.items():
            assert result.failure is None, arm
            assert result.usage.forward_passes > 2, arm
            assert set(result.scores) == {"anls", "exact"}

    def test_random_crops_have_the_reference_arms_sizes(self, folder: Path, tmp_path: Path) -> None:
        part = selection(folder, quality="clean", limit=1)
        results = ResultFile(tmp_path / "results.jsonl")
        with jobs(tmp_path, ToyVlm()) as handed:
            run(handed, part, [parse_arm(REFERENCE, "toy"), parse_arm("random-crops", "toy")], results)
        reference, moved = results.known.values()
        assert [(box.width, box.height) for box in moved.regions] == [(box.width, box.height) for box in reference.regions]
        assert moved.regions != reference.regions

    @pytest.mark.parametrize("control", sorted(MEASURED_BY_REFERENCE))
    def test_what_is_measured_by_the_reference_arm_needs_it(self, folder: Path, tmp_path: Path, control: str) -> None:
        with pytest.raises(UsageError, match=f"--arm {REFERENCE}"):
            answered(selection(folder, limit=1), tmp_path / "out" / "results.jsonl", control)

    def test_tiles_take_as_many_tokens_as_page_and_crops(self, folder: Path, tmp_path: Path) -> None:
        """The coarsest grid that reaches the budget, counted on the page; its search is charged to nobody."""
        part = selection(folder, quality="clean", limit=1)
        vlm = ToyVlm(layout="square")  # 49 tokens a page, 81 a crop
        found = answered(part, tmp_path / "out" / "results.jsonl", REFERENCE, "plain-tiles", vlm=vlm)
        grounded, tiles = (found[arm, "test/field/clean/01"] for arm in (REFERENCE, "plain-tiles"))
        count = {1: 2, 2: 4}[len(grounded.regions)]  # three tiles of this page would be strips
        assert tiles.usage.visual_tokens == 2 * 81 * count  # the answer, and its score against a refusal
        assert tiles.usage.vision_encodes == count

    @pytest.mark.parametrize(
        ("size", "crops", "tiles"),
        [
            ((96, 128), 0, 2),
            ((96, 128), 1, 2),
            ((96, 128), 2, 4),
            ((96, 128), 20, 12),
            ((128, 96), 2, 4),
            ((300, 20), 2, 8),
            ((40, 3), 1, 7),
            ((90, 1), 1, 2),
        ],
    )
    def test_the_coarsest_grid_that_reaches_the_budget(self, size: tuple[int, int], crops: int, tiles: int) -> None:
        vlm, page = ToyVlm(layout="square"), make_page(drawing(1).resize(size))
        boxes = tile_boxes(vlm, encoded(vlm, page), Shown((Box(1, 1, 40, 15),) * crops))
        assert len(boxes) == tiles
        assert sum(box.area for box in boxes) == page.box.area
        budget = 49 + 81 * crops
        assert 81 * tiles >= budget or tiles == 12

    def test_what_is_in_the_file_is_not_computed_again(self, folder: Path, tmp_path: Path) -> None:
        part = selection(folder, quality="clean", limit=2)
        path = tmp_path / "out" / "results.jsonl"
        first = answered(part, path, "plain")
        vlm = ToyVlm()
        assert [one.text for one in answered(part, path, "plain", vlm=vlm).values()] == [one.text for one in first.values()]
        assert vlm.usage.forward_passes == 0
        # A line that the machine died in is taken from the store again, and other weights answer again.
        text = path.read_text()
        path.write_text(text[:-40])
        assert answered(part, path, "plain", vlm=vlm).keys() == first.keys()
        assert vlm.usage.forward_passes == 0
        assert path.read_text() == text
        other = ToyVlm(seed=1)
        other.identity = replace(other.identity, weights_sha256="1" * 64)
        answered(part, path, "plain", vlm=other)
        assert len(path.read_text().splitlines()) == 4

    def test_an_interrupted_run_goes_on(self, folder: Path, tmp_path: Path) -> None:
        part = selection(folder, quality="clean", limit=2)
        path = tmp_path / "results.jsonl"

        def stop(result: Result) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            answered(part, path, "plain", progress=stop)
        assert len(ResultFile(path).known) == 1
        assert len(answered(part, path, "plain")) == 2

    def test_an_answer_is_on_disk_before_the_next_question_is_asked(self, folder: Path, tmp_path: Path) -> None:
        """A run cut in the second of two questions about a page has the first one's line, and asks only the second again."""
        part = selection(folder, quality="clean", limit=2)
        path = tmp_path / "results.jsonl"
        vlm, generate = ToyVlm(), ToyVlm.generate
        asked: list[int] = []

        def cut(reading: Any, count: int) -> Any:
            asked.append(count)
            if len(asked) == 2:
                raise KeyboardInterrupt
            return generate(vlm, reading, count)

        vlm.generate = cut  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            answered(part, path, "plain", vlm=vlm)
        assert len(path.read_text().splitlines()) == 1
        assert len(answered(part, path, "plain", vlm=vlm)) == 2
        assert len(asked) == 3

    def test_shards_lines_are_known_to_each_other(self, folder: Path, tmp_path: Path) -> None:
        answered(selection(folder, limit=2), tmp_path / "out" / "a.1-of-2.jsonl", "plain")
        answered(selection(folder, quality="poor"), tmp_path / "out" / "a.2-of-2.jsonl", "plain")
        assert len(read_results(tmp_path / "out")) == 3
        both = ResultFile(tmp_path / "out" / "a.jsonl", sorted((tmp_path / "out").glob("a*.jsonl")))
        assert len(both.known) == 3

    def test_a_file_of_another_version_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "results.jsonl").write_text('{"arm": "plain"}\n')
        with pytest.raises(UsageError, match="line 1"):
            ResultFile(tmp_path / "results.jsonl")

    def test_a_long_document_is_swept_and_three_pages_grounded(self, folder: Path, tmp_path: Path) -> None:
        whole = selection(folder)
        part = replace(whole, examples=tuple(example for example in whole.examples if example.group == "pages"))
        (example,) = part.examples
        found = answered(part, tmp_path / "out" / "results.jsonl", "plain", "random-map", "oracle-crop")
        # Two passes a page: the answer and its score, four pages swept, three looked at closely.
        assert found["plain", example.example_id].usage.forward_passes == 8 + 6
        assert found["random-map", example.example_id].usage.forward_passes == 8 + 6
        assert found["random-map", example.example_id].usage.vision_encodes >= 4 + 3
        assert found["oracle-crop", example.example_id].page == 3
        assert found["oracle-crop", example.example_id].usage.forward_passes == 2

    @pytest.mark.parametrize("arm", ["plain", "random-map"])
    def test_a_page_that_cannot_be_encoded_fails_its_questions_only(self, folder: Path, tmp_path: Path, arm: str) -> None:
        class Choking(ToyVlm):
            """Chokes on the first page it sees, however often."""

            first: bytes = b""

            def encode(self, images: Sequence[Image.Image], *, crops: bool = False) -> list[VisualTokens]:
                self.first = self.first or images[0].tobytes()
                if images[0].tobytes() == self.first:
                    raise PromptTooLong("never fits")
                return super().encode(images, crops=crops)

        whole = selection(folder)
        part = replace(whole, examples=tuple(example for example in whole.examples if example.group != "pages"))
        found = answered(part, tmp_path / "out" / "results.jsonl", arm, vlm=Choking())
        failures = {example: result.failure for (_, example), result in found.items()}
        assert failures["test/field/clean/01"] == failures["test/not-found/clean/01"] == "prompt_too_long"
        assert failures["test/field/poor/02"] is None
        assert found[arm, "test/field/clean/01"].scores["anls"] == 0.0

    @pytest.mark.parametrize("arm", ["plain", "random-map"])
    def test_a_document_that_cannot_be_read_fails_its_questions_only(self, folder: Path, tmp_path: Path, arm: str) -> None:
        part = selection(folder, limit=3)
        (folder / "one.png").write_bytes(b"no picture")
        found = answered(part, tmp_path / "out" / "results.jsonl", arm)
        failures = {example: result.failure for (_, example), result in found.items()}
        assert failures["test/field/clean/01"] == failures["test/not-found/clean/01"] == "unknown_format"
        assert failures["test/pages/clean/01"] is None

    @pytest.mark.parametrize("arm", ["plain", "random-map"])
    def test_a_bug_that_one_question_meets_is_its_failure_and_the_run_goes_on(
        self, folder: Path, tmp_path: Path, arm: str
    ) -> None:
        vlm, generate = ToyVlm(), ToyVlm.generate

        def trip(reading: Any, count: int) -> Any:
            if "field 1" in reading.state[0][0].text:
                raise ZeroDivisionError("secret words of the page")
            return generate(vlm, reading, count)

        vlm.generate = trip  # type: ignore[method-assign]
        found = answered(selection(folder, quality="clean", limit=2), tmp_path / "out" / "results.jsonl", arm, vlm=vlm)
        failures = {example: result.failure for (_, example), result in found.items()}
        assert failures == {"test/field/clean/01": "internal", "test/not-found/clean/01": None}
        assert "secret" not in (tmp_path / "out" / "results.jsonl").read_text()

    def test_a_deployments_workers_answer_what_is_submitted(self, folder: Path, tmp_path: Path) -> None:
        part, results, vlm = selection(folder, limit=2), ResultFile(tmp_path / "results.jsonl"), ToyVlm()

        def others(store: Store) -> None:
            worker = Worker(store, lambda: vlm)
            for batch in store.batches():
                worker.work_off(batch.batch_id)
            worker.close()

        with jobs(tmp_path, vlm, here=False) as handed:
            arm, control = arms("plain", "plain-tiles")
            submitted = handed.submit(dict(part.documents()), arm.config)
            others(handed.store)
            run(handed, part, [arm], results)
            assert {one.batch_id for one in handed.store.batches()} == {submitted}
            with pytest.raises(UsageError, match="without --db"):
                run(handed, part, [control], results)
        assert len(results.known) == 2
        assert {one.dtype for one in results.known.values()} == {"float64"}

    def test_a_line_reads_back_as_the_result(self, folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "out" / "results.jsonl"
        (result,) = answered(selection(folder, limit=1), path, REFERENCE).values()
        again = Result.from_json(result.to_json())
        assert again.to_json() == result.to_json()
        assert (
            Result.from_json(json.dumps({"failure": None, **json.loads(result.to_json())})) == again
        )  # as it was written before
        assert not {"failure", "disturbance", "unit"} & json.loads(result.to_json()).keys()
        turned = replace(result, unit="of several", disturbance="noise-1")
        assert Result.from_json(turned.to_json()) == replace(again, unit="of several", disturbance="noise-1")
        assert again.regions == result.regions
        assert again.usage.backward_passes == result.usage.backward_passes
        assert again.certainty == pytest.approx(result.certainty, rel=1e-5)


def test_regions_are_fitted_on_a_models_maps(folder: Path) -> None:
    lines = (folder / "questions.jsonl").read_text().replace('"part": "test"', '"part": "validation"')
    (folder / "questions.jsonl").write_text(lines)
    part = read_benchmark(folder).select("validation")
    saliencies = [SaliencyConfig(), SaliencyConfig(leaf=1)]
    regions = [RegionConfig(), RegionConfig(sigma_rows=0, sigma_cols=0, margin_rows=1)]
    vlm = ToyVlm()
    fitted = fit_regions(vlm, part, saliencies, regions)
    assert {(one.saliency, one.region) for one in fitted} == {(s, r) for s in saliencies for r in regions}
    assert [one.worth for one in fitted] == sorted((one.worth for one in fitted), reverse=True)
    assert {one.lift for one in fitted if one.saliency.leaf == 1} != {one.lift for one in fitted if one.saliency.leaf == 0}
    # Four questions have true boxes; the map is made once for all regions, the page encoded once for all maps.
    assert vlm.usage.backward_passes == 4 * len(saliencies)
    assert vlm.usage.vision_encodes == 3
