"""The benchmark's builder: parts that share nothing with each other or the training, true boxes, the same bytes again."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ops.bench_pages import build, foreign
from ops.bench_pages.parts import PARTS, compose_page, faces_of, kinds_of
from ops.bench_pages.scan import LOOKS, QUALITIES, Look, Scan, scan, turn
from ops.bench_pages.tasks import APART_PX, TASKS, TINY_LONG_SIDE_PX, TINY_X_HEIGHT_PX
from ops.train.compose import DOCUMENTS, SHEET
from ops.train.faces import families, is_held_out
from pipeline.evaluation.pages import read_benchmark
from pipeline.pages import PageSource, read_document


def test_parts_share_no_typeface_and_no_template_with_each_other_or_the_training() -> None:
    test, validation = PARTS
    for of in (faces_of, kinds_of):
        assert of(test)
        assert of(validation)
        assert not of(test) & of(validation)
    assert not (faces_of(test) | faces_of(validation)) & set(families("train"))
    trained = {kind for kind in DOCUMENTS if not is_held_out(kind)}
    assert not (kinds_of(test) | kinds_of(validation)) & trained


@pytest.mark.parametrize("part", PARTS)
def test_a_page_is_set_in_its_parts_typefaces(part: build.Part) -> None:
    for seed in "ab":
        page = compose_page(part, seed)
        assert {run.style.face.family for run in page.runs} <= faces_of(part)


def test_the_same_seed_makes_the_same_bytes() -> None:
    one, again = (build._make_single("validation", "poor", 3) for _ in range(2))
    assert one == again
    assert one != build._make_single("validation", "poor", 4)


@pytest.mark.parametrize("look", LOOKS)
def test_true_boxes_follow_the_paper_through_scanner_and_camera(look: Look) -> None:
    paper = Image.new("L", (600, 800), 255)
    mark = (400, 700, 440, 712)
    paper.paste(0, mark)
    for seed in range(3):
        scanned = scan(paper, look, random.Random(seed))
        box = scanned.box(mark)
        ink = 255 - np.asarray(scanned.image, float)[100:-40, 100:-40]  # without a photograph's table
        ink = np.pad(ink, ((100, 40), (100, 40)))
        ink[ink < 0.65 * ink.max()] = 0  # paper in the shade
        rows, cols = np.nonzero(ink)
        inside = (cols >= box.x0 - 2) & (cols < box.x1 + 2) & (rows >= box.y0 - 2) & (rows < box.y1 + 2)
        assert inside.mean() > 0.95  # blur and noise leave a little outside
        assert box.area < 4 * 40 * 12


def test_a_turned_box_is_the_upright_one_around_it() -> None:
    # A quarter turn counter-clockwise takes the right middle to the top middle.
    image = Image.new("L", (100, 100))
    assert Scan(image, turn(image.size, 90.0)).box((90, 40, 100, 60)).xyxy == pytest.approx((40, 0, 60, 10), abs=1)


def made(make: object, part: build.Part = "test") -> list[build.Record]:
    return [record for number in range(3) for record in make(part, "clean", number).records]  # type: ignore[operator]


def test_tiny_print_is_illegible_in_the_view_of_the_whole_page() -> None:
    assert made(build._make_large)
    pages = [compose_page("test", f"clean/large/{number}", SHEET) for number in range(3)]
    for page in pages:
        assert TINY_LONG_SIDE_PX / max(page.width, page.height) < 0.31
    assert min(page.x_height.min() for page in pages) < TINY_X_HEIGHT_PX / 0.3


def test_records_say_what_is_asked_and_where_it_stands() -> None:
    records = made(build._make_single)
    assert {record["task"] for record in records} >= {"field", "presence", "not-found"}
    for record in records:
        assert record["answerable"] == bool(record["answers"])
        places = record["evidence"]
        assert isinstance(places, list)
        if record["task"] == "compare":
            (_, ay, *_), (_, by, *_) = (place["box"] for place in places)
            (ax, *_), (bx, *_) = (place["box"] for place in places)
            assert max(abs(ax - bx), abs(ay - by)) >= APART_PX - 2
        elif record["task"] in {"field", "cell", "tiny", "check"}:
            assert len(places) == 1
        elif record["task"] == "not-found":
            assert not places


def test_a_document_of_many_pages_is_asked_for_what_one_page_alone_has() -> None:
    for record in made(build._make_many, "validation"):
        assert str(record["document"]).endswith(".pdf")
        (place,) = record["evidence"]  # type: ignore[misc]
        assert 1 <= place["page"] <= build.DOCUMENT_PAGES[1]


@pytest.mark.slow
def test_a_small_benchmark_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    counts = build.build(folder, limit=1)
    assert set(counts.values()) == {len(QUALITIES)}
    assert len(counts) == len(PARTS) * (len(TASKS) + 1)
    benchmark = read_benchmark(folder)
    assert len(benchmark.items) == sum(counts.values())
    assert len({item.id for item in benchmark.items}) == len(benchmark.items)
    build.build(tmp_path / "again", limit=1, workers=1)
    assert read_benchmark(tmp_path / "again").sha256 == benchmark.sha256


INVOICE = "000-invoice-chromium.pdf"
EXPECTED = json.loads((foreign.SOURCE / "expected.json").read_text())[INVOICE]


@pytest.fixture
def invoice(tmp_path: Path) -> Path:
    """A folder of documents of other programs that holds one."""
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(foreign.SOURCE / INVOICE, source)
    (source / "expected.json").write_text(json.dumps({INVOICE: EXPECTED}))
    shutil.copy(foreign.SOURCE / "questions.jsonl", source)
    return source


def test_documents_of_other_programs_take_the_benchmarks_form(invoice: Path, tmp_path: Path) -> None:
    foreign.convert(invoice, tmp_path / "target")
    items = read_benchmark(tmp_path / "target").items
    assert len(items) == len(EXPECTED)
    assert {item.task for item in items} == {"chromium"}
    for item in items:
        answer = EXPECTED[item.id.rsplit("/", 1)[1]]
        assert item.answers == ((answer["text"],) if answer["text"] is not None else ())
        assert len(item.evidence) == item.answerable
        for truth in item.evidence:
            assert truth.box.x0 / 1700 == pytest.approx(answer["box"][0], abs=0.001)  # Letter at 200 dpi


def test_documents_of_other_programs_can_be_photographed(invoice: Path, tmp_path: Path) -> None:
    for look in ("clean", "photograph"):
        foreign.convert(invoice, tmp_path / look, look)
    printed, taken = (read_benchmark(tmp_path / look).items for look in ("clean", "photograph"))
    assert [item.answers for item in taken] == [item.answers for item in printed]
    assert {item.quality for item in taken} == {"photograph"}
    for before, after in zip(printed, taken, strict=True):
        for paper, seen in zip(before.evidence, after.evidence, strict=True):
            assert seen.box != paper.box
            assert abs(seen.box.x0 - paper.box.x0) < 0.07 * 1700
    with PageSource(read_document(tmp_path / "photograph" / INVOICE), INVOICE) as taken_pages:
        table = np.asarray(taken_pages.page(1).image.convert("L"))[:5, :5]
        assert taken_pages.page(1).image.size == (1700, 2200)
    assert table.mean() < 160
