"""`exhibit eval` as people call it: hand-made folders in every official format, tables, ablations, figures; a tiny model."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.cli import main
from pipeline.evaluation.arms import REFERENCE
from pipeline.evaluation.command import DATASETS
from pipeline.evaluation.figures import FIGURES
from pipeline.evaluation.pages import read_benchmark
from pipeline.evaluation.results import DIGITS, ResultFile, read_results
from pipeline.geometry import Box
from pipeline.presets import method_config
from pipeline.store import Store
from pipeline.vlms.catalogue import find_model
from tests import official_folders
from tests.tiny_models import build
from tests.unit.test_evaluation_tables import result

PLAIN, OURS = "plain+max_new_tokens=3", "entropy-gradient+max_new_tokens=3"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llava", tmp_path_factory.mktemp("model"))


@pytest.fixture
def evaluate(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command; return what it prints."""

    def run(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(["eval", *arguments, "--model", str(model), "--out", str(tmp_path / "out")]) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


@pytest.mark.parametrize("name", DATASETS)
def test_every_official_format_is_run_and_reported(name: str, evaluate: Callable[..., str], tmp_path: Path) -> None:
    data = official_folders.build(name, tmp_path / "data")
    text = evaluate(name, "--data", str(data), "--limit", "1", "--arm", PLAIN, "--arm", OURS)
    assert f"Dataset {name}, " in text
    asked = len({result.example for result in read_results(tmp_path / "out")})
    assert asked == 1 or name == "mmbench-circular"  # a question there is all rotations of its options
    assert f"| {OURS} | {asked} |" in text
    results = read_results(tmp_path / "out")
    assert {result.dataset for result in results} == {name}
    assert {result.arm for result in results} == {PLAIN, OURS}
    assert not [result.failure for result in results if result.failure]
    (table,) = (tmp_path / "out").glob("*.csv")
    assert {line["arm"] for line in csv.DictReader(table.read_text().splitlines())} == {PLAIN, OURS}


class _Outside(HTMLParser):
    """Collects what a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "iframe", "object", "embed"}:
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (name in {"src", "href"} and not (value or "").startswith("data:image/png;base64,")):
                self.found.append(f"{tag} {name}={value}")
        self.images += tag == "img"


def test_the_html_page_is_escaped_and_needs_nothing_else(evaluate: Callable[..., str], tmp_path: Path) -> None:
    data = official_folders.build("pages", tmp_path / "data")
    question = 'What is <script>alert("x")</script> & co?'
    lines = [json.loads(line) for line in (data / "questions.jsonl").read_text().splitlines()]
    (data / "questions.jsonl").write_text("".join(json.dumps(line | {"question": question}) + "\n" for line in lines))
    evaluate("pages", "--data", str(data), "--arm", PLAIN, "--arm", OURS)
    (path,) = (tmp_path / "out").glob("*.html")
    page = path.read_text()
    parser = _Outside()
    parser.feed(page)
    assert parser.found == []
    assert parser.images >= 1  # an overlay of the question with a true box
    assert "&lt;script&gt;alert" in page
    assert not re.search(r"https?://", page)
    assert "default-src 'none'" in page


def test_a_report_computes_nothing_and_a_second_run_goes_on(evaluate: Callable[..., str], tmp_path: Path) -> None:
    data = official_folders.build("pages", tmp_path / "data")
    asked = ("pages", "--data", str(data), "--arm", PLAIN)
    assert "leave --report out" in evaluate(*asked, "--report", code=2)
    evaluate(*asked, "--limit", "1")
    assert "| 1 |" in evaluate(*asked, "--report")
    assert "| 2 |" in evaluate(*asked)
    (lines,) = (tmp_path / "out").glob("*.jsonl")
    assert len(lines.read_text().splitlines()) == 2


def test_shards_are_put_together_by_their_folder(evaluate: Callable[..., str], tmp_path: Path) -> None:
    data = official_folders.build("vstar", tmp_path / "data")
    for shard in ("1/2", "2/2"):
        assert f"| {PLAIN} | 1 |" in evaluate("vstar", "--data", str(data), "--arm", PLAIN, "--shard", shard)
    assert len(list((tmp_path / "out").glob("*-of-2.jsonl"))) == 2
    assert f"| {PLAIN} | 2 |" in evaluate("vstar", "--data", str(data), "--arm", PLAIN, "--report")


def test_ablations_run_their_arms_and_tables_lay_them_out(evaluate: Callable[..., str], tmp_path: Path) -> None:
    data = official_folders.build("pages", tmp_path / "data")
    found = evaluate(
        "ablations", "--data", str(data), "--slice", "2", "--limit", "1", "--only", "layer", "--only", "objective"
    )
    assert "Table 5. Leaving the language model early" in found
    results = read_results(tmp_path / "out")
    # The tiny model has three blocks.
    assert {"entropy-gradient+layer=1", "entropy-gradient+layer=3", "entropy-gradient"} <= {one.arm for one in results}
    assert "entropy-gradient+layer=4" not in {one.arm for one in results}
    laid_out = evaluate("--table", "3")
    assert "| 89.30 / " not in laid_out  # the paper's figure stands with the paper's model
    assert "89.31" in laid_out
    assert re.search(r"\| entropy of the answer \|.*\| 1 \|", laid_out)
    assert "--table 12: expected one of 1, 2" in evaluate("--table", "12", code=2)
    assert "stand alone" in evaluate("--table", "3", "pages", "--data", str(data), code=2)
    # The folder of results says it all by itself, with neither dataset nor model.
    shutil.rmtree(data)
    told = evaluate("--summary")
    assert "### Leaving the language model early" in told.replace("Table 5. ", "")
    assert "### When to stop" not in told.replace("Table 2. ", "")  # nothing of it was run
    assert "| entropy-gradient | 1 |" in told
    assert "Dataset pages, test; digest " in told


@pytest.mark.parametrize("number", FIGURES)
def test_figures_are_whole_in_themselves(number: int, evaluate: Callable[..., str], tmp_path: Path) -> None:
    data = official_folders.build("pages", tmp_path / "data")
    path = Path(evaluate("--figure", str(number), "--data", str(data)).strip())
    drawing = ElementTree.fromstring(path.read_text())
    images = [one for one in drawing.iter() if one.tag.endswith("image")]
    assert all(image.attrib["href"].startswith("data:image/png;base64,") for image in images)
    assert images or number == 7
    told = " ".join(" ".join(drawing.itertext()).split())
    assert f"Figure {number}. " in told
    assert re.search(r"n = \d+ questions of benchmark [0-9a-f]{16}; weights: \S+ [0-9a-f]{16} \(float32\)\.", told)
    assert "expected one of 3, 5" in evaluate("--figure", "4", code=2)


@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize(
    ("number", "chosen", "how"),
    [
        (3, ["Number 3?"], "Questions chosen by results: only ours is right."),
        (5, ["Number 0?", "Number 4?", "Number 1?"], "a wrong start, then found: chosen by results"),
        (13, ["Number 5?"], "Questions chosen by results: hit, and wrong."),
    ],
)
def test_figures_take_their_questions_from_the_folder_of_results(
    number: int, chosen: list[str], how: str, evaluate: Callable[..., str], model: Path, tmp_path: Path
) -> None:
    data = official_folders.build("pages", tmp_path / "data")
    first = json.loads((data / "questions.jsonl").read_text().splitlines()[0])
    lines = [first | {"id": f"q{number}", "task": f"task-{number}", "question": f"Number {number}?"} for number in range(6)]
    (data / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    truth, near, far = Box(20, 40, 60, 52), Box(18, 38, 62, 54), Box(100, 80, 130, 100)
    asked = {
        "benchmark": read_benchmark(data).sha256[:DIGITS],
        "weights": find_model(str(model)).weights_sha256[:DIGITS],
    }
    results = ResultFile(tmp_path / "out" / "pages.jsonl")
    for arm, example, right, regions in [
        (REFERENCE, "q3", True, (far,)),
        ("vicrop+block=1", "q3", False, ()),  # the tiny model has three blocks
        (REFERENCE, "q4", True, (far, near)),
        (REFERENCE, "q5", False, (near,)),
    ]:
        page = {"page_wh": (160, 120), "truths": (truth,), "regions": regions, "first_regions": regions[:1]}
        results.append(result(arm, example, right, "pages", "llava", **(asked | page)))
    path = Path(evaluate("--figure", str(number), "--data", str(data)).strip())
    told = " ".join(" ".join(ElementTree.fromstring(path.read_text()).itertext()).split())
    assert how in told
    assert re.findall(r"Q: (Number \d\?)", told) == chosen


@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize(
    ("preset", "grounded", "tuned", "count"),
    [
        # The reference arm and its control.
        ("document", ["entropy-gradient/document", "plain-tiles"], "spot-e/document", 2),
        # Which SPOT-E has not.
        ("official", ["entropy-gradient/official"], "spot-e", 1),
    ],
)
def test_methods_are_run_with_a_preset_and_beside_their_controls(
    preset: str, grounded: list[str], tuned: str, count: int, evaluate: Callable[..., str], tmp_path: Path
) -> None:
    data = official_folders.build("pages", tmp_path / "data")
    methods = [item for name in ("plain", "entropy-gradient", "spot-e") for item in ("--method", name)]
    asked = ("pages", "--data", str(data), *methods, "--preset", preset, "--limit", str(count))
    report = evaluate(*asked)
    masks = [f"{tuned}+eye=vlm", f"{tuned}+update=false+eye=vlm"]
    arms = ["plain", *grounded, *masks]
    answers = report.partition("### Answers\n")[2].partition("###")[0]
    assert re.findall(rf"^\| (\S+) \| {count} \|", answers, re.MULTILINE) == arms
    results = read_results(tmp_path / "out")
    assert len(results) == count * len(arms)
    assert {result.arm for result in results} == set(arms)
    assert not [result.failure for result in results if result.failure]
    # As many masks from the initial policy as from one that is tuned.
    spent = [{one.example: one.usage.forward_passes for one in results if one.arm == arm} for arm in masks]
    assert spent[0] == spent[1]
    assert min(spent[0].values()) > 8 * 4

    with Store.open(f"sqlite:///{tmp_path / 'out' / 'exhibit.db'}") as store:
        asked_with = {batch.setup.config_sha256 for batch in store.batches()}
    assert asked_with == {
        method_config(method, "llava", own, {"prompt": "document"} | changes).sha256
        for method, own, changes in [
            ("plain", None, {}),
            ("entropy-gradient", preset, {}),
            ("spot-e", "document", {}),
            ("spot-e", "document", {"update": "false"}),
        ]
    }
    assert evaluate(*asked, "--report") == report


def test_a_preset_that_no_method_has_is_told_with_the_nearest_first(evaluate: Callable[..., str], tmp_path: Path) -> None:
    data = official_folders.build("pages", tmp_path / "data")
    told = evaluate("pages", "--data", str(data), "--method", "spot-e", "--preset", "papers", code=2)
    assert "--preset papers: unknown; known: paper, " in told
    assert not list((tmp_path / "out").glob("*.jsonl"))


def test_nothing_named_is_a_usage_error(evaluate: Callable[..., str]) -> None:
    assert "name a dataset, --table, --figure or --summary" in evaluate(code=2)
    assert "one at a time" in evaluate("pages", "--model", "another", code=2)
