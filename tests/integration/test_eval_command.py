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
from pipeline.evaluation.command import DATASETS
from pipeline.evaluation.figures import FIGURES
from pipeline.evaluation.results import read_results
from tests import official_folders
from tests.tiny_models import build

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


def test_nothing_named_is_a_usage_error(evaluate: Callable[..., str]) -> None:
    assert "name a dataset, --table, --figure or --summary" in evaluate(code=2)
    assert "one at a time" in evaluate("pages", "--model", "another", code=2)
