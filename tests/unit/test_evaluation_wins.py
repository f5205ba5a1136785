"""Wins, losses, adjusted p-values and gaps as a reader of the report sees them, against values worked out by hand.

Ten questions that all arms answered, the first five of one task, the others of another; an eleventh is plain's alone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest
from PIL import Image

from pipeline.evaluation.html import page
from pipeline.evaluation.report import Scores, as_csv, markdown, score
from pipeline.evaluation.results import Result
from pipeline.evaluation.selection import Selection, Wanted, select
from tests.unit.test_evaluation_report import NEAR, TRUTH, item, result

RIGHT: Mapping[str, set[int]] = {
    "plain": {0, 1, 10},
    "a": {2, 3, 4, 5, 6, 7},
    "b": {0, 1, 2, 3, 4, 5, 6, 7},
    "c": {0, 1, 2, 3},
    "oracle-crop": set(range(10)),
}
GROUPS = ["field"] * 5 + ["cell"] * 5 + ["field"]
ASKED = [item(number, f"R<{number}>", group=group) for number, group in enumerate(GROUPS)]
HIT = {2, 8}
"""Where arm a shows the true place and nothing else: it reads the first of the two."""


def answered(arm: str, number: int) -> Result:
    text = f"R<{number}>" if number in RIGHT[arm] else f"a wrong one & {arm}'s"
    return result(ASKED[number], text, *[NEAR] * (arm == "a" and number in HIT), arm=arm)


@pytest.fixture(scope="module")
def scores() -> dict[str, Scores]:
    results = [answered(arm, number) for arm in RIGHT for number in range(10 + (arm == "plain"))]
    return score(results, {arm: arm for arm in RIGHT}, [asked.example for asked in ASKED])


def answers_table(scores: Mapping[str, Scores]) -> dict[str, dict[str, str]]:
    """The report's first table: arm -> header -> cell."""
    (section,) = [part for part in markdown(scores).split("### ") if part.startswith("Answers\n")]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    header, _, *rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


@pytest.fixture(scope="module")
def table(scores: dict[str, Scores]) -> dict[str, dict[str, str]]:
    return answers_table(scores)


@pytest.mark.parametrize(
    ("arm", "difference", "wins", "p", "gap"),
    [
        # p by McNemar's exact test: 2 P(X <= losses) for X binomial of wins + losses and 1/2; times Holm's factor.
        ("oracle-crop", "+0.80", "8 : 0", "0.031", None),  # 2 / 2^8 = 0.0078, the smallest of four: times 4
        ("b", "+0.60", "6 : 0", "0.094", "0.75"),  # 2 / 2^6 = 0.0313, times 3; (0.8 - 0.2) / (1 - 0.2)
        ("a", "+0.40", "6 : 2", "0.578", "0.50"),  # 2 (1 + 8 + 28) / 2^8 = 0.2891, times 2; (0.6 - 0.2) / 0.8
        ("c", "+0.20", "2 : 0", "0.578", "0.25"),  # 2 / 2^2 = 0.5, times 1, and never below the one before
    ],
)
def test_an_arm_is_set_against_plain_as_by_hand(
    table: dict[str, dict[str, str]], arm: str, difference: str, wins: str, p: str, gap: str | None
) -> None:
    cells = table[arm]
    assert (cells["n"], cells["wins : losses"], cells["p"]) == ("10", wins, p)
    assert cells["score - plain"].startswith(f"{difference} [")
    assert cells["gap closed"].startswith(f"{gap} [") if gap else cells["gap closed"] == ""


def test_plain_is_set_against_nothing(table: dict[str, dict[str, str]]) -> None:
    cells = table["plain"]
    assert (cells["n"], cells["exact"][:4]) == ("11", "0.27")
    assert {cells[name] for name in ("score - plain", "wins : losses", "p", "gap closed")} == {""}


def test_without_plain_or_oracle_there_is_no_comparison_with_them(scores: dict[str, Scores]) -> None:
    alone = answers_table({"a": scores["a"]})["a"]
    assert {alone[name] for name in ("score - plain", "wins : losses", "p", "gap closed")} == {""}
    # Of two arms with a test each, Holm's factor is that of two, not of four.
    fewer = answers_table({name: scores[name] for name in ("plain", "a", "b")})
    assert [fewer[name]["p"] for name in ("a", "b")] == ["0.289", "0.062"]  # 0.0625, halves to even
    assert [fewer[name]["gap closed"] for name in ("a", "b")] == ["", ""]


def test_the_csv_holds_the_test_of_each_arm_before_any_adjustment(scores: dict[str, Scores]) -> None:
    lines = csv.DictReader(as_csv(scores).splitlines())
    found = {line["arm"]: float(line["value"]) for line in lines if line["quantity"] == "McNemar's p against plain"}
    assert found == {"a": 74 / 256, "b": 2 / 64, "c": 0.5, "oracle-crop": 2 / 256}


@dataclass
class Figure:
    """A question as the page shows it: its picture's name, its words, and which answers are coloured how."""

    picture: str = ""
    text: str = ""
    said: list[tuple[str, str]] = field(default_factory=list)


class Reader(HTMLParser):
    """Reads figures under their headings, and the first table's cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.figures: dict[str, list[Figure]] = {}
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self._heading = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "h2":
            self._heading = ""
        elif tag == "figure":
            self.figures.setdefault(self._heading, []).append(Figure())
        elif tag == "img":
            self.figures[self._heading][-1].picture = given["alt"]
        elif tag == "span":
            self.figures[self._heading][-1].said.append((given["class"], ""))
        elif tag == "tr" and self._heading == "Answers":
            self.rows.append([])
        elif tag in {"td", "th"} and self._heading == "Answers":
            self.rows[-1].append("")
        if tag not in {"br", "img", "meta"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "h2":
            self._heading += data
        elif inside in {"td", "th"} and self._heading == "Answers":
            self.rows[-1][-1] += data
        if "figure" in self._open:
            figure = self.figures[self._heading][-1]
            figure.text += data
            if inside == "span":
                colour, text = figure.said[-1]
                figure.said[-1] = colour, text + data


@pytest.fixture(scope="module")
def selection(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    folder = tmp_path_factory.mktemp("pages")
    Image.new("RGB", (100, 100), "white").save(folder / "one.png")
    record = {"part": "test", "quality": "clean", "document": "one.png", "type": "text", "choices": [], "answerable": True}
    lines = [
        record
        | {"id": asked.example, "task": asked.group, "question": f"What is <{number}>?", "answers": list(asked.answers)}
        | {"evidence": [{"page": 1, "box": list(TRUTH.xyxy)}]}
        for number, asked in enumerate(ASKED)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return select("pages", folder, None, Wanted())


@pytest.fixture(scope="module")
def shown(selection: Selection, scores: dict[str, Scores]) -> Reader:
    return Reader(page(selection, scores))


def numbers(figures: list[Figure]) -> list[int]:
    return [int(figure.picture.rpartition("/")[2]) for figure in figures]


@pytest.mark.parametrize(
    ("arm", "wins", "shown_wins", "losses", "shown_losses"),
    [
        # Three of each kind are shown, the first of each task before the second of any.
        ("a", 6, [2, 5, 3], 2, [0, 1]),
        ("b", 6, [2, 5, 3], 0, []),
        ("c", 2, [2, 3], 0, []),
        ("oracle-crop", 8, [2, 5, 3], 0, []),
    ],
)
def test_the_page_shows_an_arms_wins_and_losses(
    shown: Reader, arm: str, wins: int, shown_wins: list[int], losses: int, shown_losses: list[int]
) -> None:
    won = shown.figures[f"{arm}: right where plain is wrong ({wins})"]
    lost = shown.figures.get(f"{arm}: wrong where plain is right ({losses})", [])
    assert (numbers(won), numbers(lost)) == (shown_wins, shown_losses)
    for number, figure in [*zip(shown_wins, won, strict=True), *zip(shown_losses, lost, strict=True)]:
        right, wrong = f"R<{number}>", f"a wrong one & {arm if number in shown_losses else 'plain'}'s"
        assert figure.said == (
            [("right", right), ("wrong", wrong)] if number in shown_wins else [("wrong", wrong), ("right", right)]
        )
        assert f"What is <{number}>?" in figure.text
        assert f"accepted: {right}" in figure.text


def test_without_plain_the_page_compares_with_the_first_arm(selection: Selection, scores: dict[str, Scores]) -> None:
    found = Reader(page(selection, {name: scores[name] for name in ("a", "c")})).figures
    assert numbers(found["c: right where a is wrong (2)"]) == [0, 1]
    assert numbers(found["c: wrong where a is right (4)"]) == [4, 5, 6]
    assert found["c: right where a is wrong (2)"][0].said == [("right", "R<0>"), ("wrong", "a wrong one & a's")]
    assert not [heading for heading in found if "plain" in heading]


def test_the_page_shows_places_that_were_found_and_misread(shown: Reader) -> None:
    (misread,) = shown.figures["a: looked at the right place and wrong (1)"]
    assert (numbers([misread]), misread.said) == ([8], [("wrong", "a wrong one & a's")])
    assert not [heading for heading in shown.figures if heading.startswith("plain: ")]
    assert sum("looked at the right place" in heading for heading in shown.figures) == 1


def test_the_page_has_the_tables_of_the_report(shown: Reader, table: dict[str, dict[str, str]]) -> None:
    header, *rows = shown.rows
    assert [row[0] for row in rows] == list(RIGHT)
    assert {row[0]: dict(zip(header, row, strict=True)) for row in rows} == table
