"""From results to a report: what each arm answers, where it looks, what that costs, and whether arms differ."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.evaluation import metrics
from pipeline.evaluation.datasets import FORMATS, Scored, summarise
from pipeline.evaluation.metrics import Interval, bootstrap, bootstrap_mean
from pipeline.evaluation.results import Result
from pipeline.evaluation.statistics import Comparison, compare, holm

LARGE, SMALL, TOGETHER = 0.05, 0.02, 0.15
"""Shares of the page that the first region, and all regions together, may have in order to count as a hit."""
RIGHT = 0.5
"""From this score on an answer is right where the metric has no exact match of its own."""
SLOW_RESAMPLES = 200
"""Of official aggregates that are no mean, such as MMBench's."""

Cells = Sequence[str]


@dataclass(frozen=True, slots=True)
class Row:
    """A result and what it amounts to."""

    result: Result

    @property
    def score(self) -> float:
        """By the dataset's official metric."""
        return self.result.scores.get(FORMATS[self.result.dataset].scoring.metric, 0.0)

    @property
    def right(self) -> bool:
        """Exact match where the dataset has one; a due refusal."""
        return self.result.scores.get("exact", self.score) >= RIGHT

    @property
    def page_area(self) -> int:
        """In square pixels."""
        width, height = self.result.page_wh or (0, 0)
        return width * height

    def hit(self, limit: float) -> bool:
        """See `metrics.hit_at`; on another page there is no hit."""
        return metrics.hit_at(self.result.regions, self.result.truths, self.page_area, limit)

    @property
    def any_hit(self) -> bool:
        """See `metrics.any_hit`."""
        whole = len(self.result.truths) == self.result.places
        return whole and metrics.any_hit(self.result.regions, self.result.truths, self.page_area, TOGETHER)

    @property
    def shown(self) -> float:
        """Share of the page that was shown closely."""
        return metrics.union_area(self.result.regions) / self.page_area if self.page_area else 0.0


class Scores:
    """One arm's results on some questions of a dataset."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    def where(self, keep: Callable[[Row], bool]) -> Scores:
        """Those results that a condition holds for."""
        return Scores(row for row in self.rows if keep(row))

    @cached_property
    def located(self) -> list[Row]:
        """Results on questions with a true box, of arms that show regions anywhere."""
        return [row for row in self.rows if row.result.places] if any(row.result.regions for row in self.rows) else []

    @cached_property
    def official(self) -> dict[str, float]:
        """The dataset's official aggregate and its parts."""
        return summarise(self.rows[0].result.dataset, [_scored(row) for row in self.rows]) if self.rows else {}

    def score(self) -> Interval | None:
        """The official headline figure, its interval over the dataset's units."""
        rows = [row for row in self.rows if row.result.scores]
        if not rows:
            return None
        dataset = rows[0].result.dataset
        metric = FORMATS[dataset].scoring.metric
        scored = np.array([_scored(row) for row in rows], dtype=object)
        values = [row.score for row in rows]
        units: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            units.setdefault(row.result.unit, []).append(place)
        headline = self.official[metric]
        if len(units) == len(rows) and abs(headline - (metrics.mean(values) or 0.0)) < 1e-9:
            return bootstrap_mean(values)
        places = list(units.values())

        def official(chosen: np.ndarray) -> float | None:
            drawn = [place for unit in chosen for place in places[unit]]
            return summarise(dataset, list(scored[drawn])).get(metric)

        return bootstrap(len(places), official, resamples=SLOW_RESAMPLES)

    def right(self) -> Interval | None:
        """Share of exact matches."""
        return bootstrap_mean([row.right for row in self.rows if row.result.scores])

    def hits(self, limit: float) -> Interval | None:
        """Share of hits by the first region."""
        return bootstrap_mean([row.hit(limit) for row in self.located])

    def any_hits(self) -> Interval | None:
        """Share of questions whose true boxes are all shown."""
        return bootstrap_mean([row.any_hit for row in self.located])

    def coverage(self) -> Interval | None:
        """Mean intersection of all regions with the true boxes, over the true boxes' area."""
        return bootstrap_mean(
            [metrics.coverage(row.result.regions, row.result.truths) if row.result.truths else 0.0 for row in self.located]
        )

    def covered(self) -> Interval | None:
        """Share of questions whose regions cover at least half of the true boxes' area."""
        return bootstrap_mean([metrics.covered_hit(row.result.regions, row.result.truths) for row in self.located])

    def pointing(self) -> Interval | None:
        """Share of first maps whose peak lies in a true box."""
        return bootstrap_mean([row.result.pointed for row in self.rows if row.result.pointed is not None])

    def lift(self) -> Interval | None:
        """Mean share of saliency in the true boxes over their mean share of the page's cells."""
        shares = [(row.result.inside, row.result.inside_area) for row in self.rows]
        known = np.array([pair for pair in shares if None not in pair], float).reshape(-1, 2)
        return bootstrap(len(known), lambda chosen: float(np.divide(*known[chosen].sum(axis=0))))

    def iou(self) -> Interval | None:
        """Mean IoU of the first region."""
        return bootstrap_mean([metrics.best_iou(row.result.regions, row.result.truths) for row in self.located])

    def median_shown(self) -> float | None:
        """Median share of the page shown closely, of the questions where anything was."""
        shares = [row.shown for row in self.rows if row.result.regions]
        return float(np.median(shares)) if shares else None

    def right_given(self, *, hit: bool) -> Interval | None:
        """P(right | hit) or P(right | no hit), a hit being one at the larger limit."""
        return bootstrap_mean([row.right for row in self.located if row.hit(LARGE) is hit])

    @cached_property
    def given(self) -> list[Row]:
        """Answers, refusals and failures apart."""
        return [row for row in self.rows if row.result.text is not None and not row.result.not_found]

    def wrong_answers(self) -> Interval | None:
        """Share of wrong ones among the answers given: what a reader who trusts them is told."""
        return bootstrap_mean([not row.right for row in self.given])

    @cached_property
    def certainties(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each answer given, the surest first: mean log-probability of its tokens, if known; whether it is right."""
        known = [(row.result.certainty, row.right) for row in self.given if row.result.certainty is not None]
        surest = sorted(known, key=lambda pair: pair[0], reverse=True)
        return np.array([certainty for certainty, _ in surest], float), np.array([right for _, right in surest], bool)

    def failures(self) -> int:
        """Questions that the method failed on."""
        return sum(row.result.failure is not None for row in self.rows)

    def refusals(self) -> metrics.Detection:
        """Precision, recall and F1 of "not found"."""
        return metrics.not_found_detection(*self._refusals())

    def refusal_f1(self) -> Interval | None:
        """F1 of "not found", with its interval; None where every question has an answer."""
        said, absent = self._refusals()
        if not absent.any():
            return None
        return bootstrap(len(said), lambda rows: metrics.not_found_detection(said[rows], absent[rows]).f1)

    def _refusals(self) -> tuple[np.ndarray, np.ndarray]:
        said = np.array([row.result.not_found for row in self.rows], bool)
        return said, np.array([not row.result.answerable for row in self.rows], bool)

    def spent(self, what: str) -> float | None:
        """Mean of a counter of `pipeline.records.Usage`, a question."""
        return metrics.mean([getattr(row.result.usage, what) for row in self.rows])


def _scored(row: Row) -> Scored:
    return Scored(row.result.group, row.result.unit, row.result.scores)


def score(results: Iterable[Result], arms: Mapping[str, str], examples: Sequence[str] | None = None) -> dict[str, Scores]:
    """Results by arm.

    Args:
        results: Of one dataset; of any arm.
        arms: Names and digests of the arms wanted, in order. The digest decides: what an arm answered before its preset
            changed is left out, and what the same parameters answered under another name is taken.
        examples: Ids of the questions wanted, in order; all if None.

    Returns:
        Arms that have results; one that was run with several weights or dtypes, under a name for each.
    """
    order = {example: place for place, example in enumerate(examples)} if examples is not None else None
    names = {digest: name for name, digest in arms.items()}
    wanted = [r for r in results if r.config in names and (order is None or r.example in order)]
    several = len({result.dtype for result in wanted}) > 1, len({result.weights for result in wanted}) > 1
    rows: dict[str, list[Row]] = {arm: [] for arm in arms}
    for result in wanted:
        parts = [part for part, given in zip((result.dtype, _model(result)), several, strict=True) if given]
        name = names[result.config]
        rows.setdefault(f"{name} ({', '.join(parts)})" if parts else name, []).append(Row(result))
    for found in rows.values():
        found.sort(key=lambda row: order[row.result.example] if order is not None else row.result.example)
    return {name: Scores(found) for name, found in rows.items() if found}


def _model(result: Result) -> str:
    return f"{result.model} {result.weights[:8]}"


def baseline(scores: Mapping[str, Scores], name: str) -> Scores | None:
    """What an arm is compared with: plain, of the same weights and dtype where there are several; None for plain itself."""
    plain = _beside(scores, name, "plain")
    return plain if plain is not scores[name] else None


def _beside(scores: Mapping[str, Scores], name: str, arm: str) -> Scores | None:
    """Another arm of the same weights and dtype, which names end in where there are several (`score`)."""
    _, several, which = name.partition(" (")
    return scores.get(f"{arm}{several}{which}")


def paired(ours: Scores, theirs: Scores) -> list[tuple[Row, Row]]:
    """The scored questions that two arms both answered."""
    other = {row.result.example: row for row in theirs.rows if row.result.scores}
    return [(row, other[row.result.example]) for row in ours.rows if row.result.scores and row.result.example in other]


def difference(ours: Scores, theirs: Scores) -> Comparison | None:
    """Paired comparison on the questions that both answered."""
    pairs = paired(ours, theirs)
    return compare([(a.score, a.right) for a, _ in pairs], [(b.score, b.right) for _, b in pairs])


def others(scores: Mapping[str, Scores]) -> list[tuple[str, str, Comparison]]:
    """Every two arms of which neither is what all are compared with anyway, on the questions that both answered."""
    baselines = [found for name in scores if (found := baseline(scores, name)) is not None]
    names = [name for name, arm in scores.items() if not any(arm is found for found in baselines)]
    compared = [(a, b, difference(scores[a], scores[b])) for a, b in itertools.combinations(names, 2)]
    return [(a, b, found) for a, b, found in compared if found is not None]


def gap(plain: Scores, grounded: Scores, oracle: Scores) -> Interval | None:
    """Share of the oracle's gain in score that is reached, paired over the questions that all three answered."""
    by_example = [{row.result.example: row.score for row in arm.rows} for arm in (plain, grounded, oracle)]
    common = [key for key in by_example[0] if key in by_example[1] and key in by_example[2]]
    values = np.array([[arm[key] for key in common] for arm in by_example])

    def statistic(chosen: np.ndarray) -> float | None:
        low, ours, high = values[:, chosen].mean(axis=1)
        return metrics.gap_closed(float(low), float(ours), float(high))

    return bootstrap(len(common), statistic)


def title(scores: Mapping[str, Scores]) -> str:
    """What was asked, in a few words."""
    result = next(iter(scores.values())).rows[0].result
    disturbed = f", {result.disturbance}" if result.disturbance else ""
    return f"{result.dataset}, {result.split}{disturbed}"


def facts(scores: Mapping[str, Scores], notes: Sequence[str] = ()) -> list[str]:
    """What a reader must know of a report: which questions, which weights, how intervals are made."""
    results = [row.result for arm in scores.values() for row in arm.rows]
    weights = sorted({f"{result.model} {result.weights} ({result.dtype})" for result in results})
    metric = FORMATS[results[0].dataset].scoring.metric
    return [
        f"Dataset {title(scores)}; digest {results[0].benchmark}; {len({r.example for r in results})} questions.",
        f"Weights sha256: {', '.join(weights)}.",
        f"Score: {metric}. 95 % percentile bootstrap intervals in brackets, over questions; n: questions.",
        "p: McNemar's exact test on right against wrong answers, against plain, adjusted by Holm's method over the arms; of "
        "other pairs over all of these.",
        *notes,
    ]


def markdown(scores: Mapping[str, Scores], notes: Sequence[str] = ()) -> str:
    """The report."""
    sections = ["\n".join(f"- {line}" for line in facts(scores, notes))]
    sections += [f"### {name}\n\n{about}{table(header, rows)}" for name, about, header, rows in tables(scores)]
    return "\n\n".join(sections) + "\n"


Table = tuple[str, str, Cells, Sequence[Cells]]
"""Heading, explanation (empty, or ending in a blank line), header, rows."""


def tables(scores: Mapping[str, Scores]) -> list[Table]:
    """All tables of a report that have rows."""
    found = [_answers(scores), _cost(scores), _places(scores), _certainty(scores), _official(scores)]
    found += [
        _by(scores, "group", lambda row: row.result.group),
        _by(scores, "quality", lambda row: row.result.quality),
        _hits_by_group(scores),
        _others(scores),
    ]
    return [one for one in found if one[3]]


def _answers(scores: Mapping[str, Scores]) -> Table:
    plains = {name: plain for name in scores if (plain := baseline(scores, name)) is not None}
    against = {name: difference(scores[name], plain) for name, plain in plains.items()}
    tested = {name: found for name, found in against.items() if found}
    adjusted = dict(zip(tested, holm([found.test.p for found in tested.values()]), strict=True))
    refusing = any(not row.result.answerable for arm in scores.values() for row in arm.rows)
    header = ["arm", "n", "score", "exact", "score - plain", "wins : losses", "p", "gap closed", "wrong of answered"]
    header += ["refusal P", "R", "F1"] * refusing + ["failed"]
    rows = []
    for name, arm in scores.items():
        found, test = arm.refusals(), tested.get(name)
        plain, oracle = plains.get(name), _beside(scores, name, "oracle-crop")
        closed = gap(plain, arm, oracle) if plain and oracle and arm is not oracle else None
        rows.append(
            [
                name,
                str(len(arm.rows)),
                interval(arm.score()),
                interval(arm.right()),
                interval(test.difference if test else None, sign=True),
                f"{test.test.wins} : {test.test.losses}" if test else "",
                number(adjusted.get(name), 3),
                interval(closed),
                interval(arm.wrong_answers()),
                *[number(found.precision), number(found.recall), interval(arm.refusal_f1())] * refusing,
                str(arm.failures() or ""),
            ]
        )
    return "Answers", "", header, rows


COUNTERS = {
    "forward_passes": "forwards",
    "backward_passes": "backwards",
    "vision_encodes": "views encoded",
    "visual_tokens": "visual tokens",
    "decoded_tokens": "tokens decoded",
    "seconds": "s",
}


def _cost(scores: Mapping[str, Scores]) -> Table:
    rows = []
    for name, arm in scores.items():
        score = arm.score()
        counts = [number(arm.spent(what), 0 if what == "visual_tokens" else 2) for what in COUNTERS]
        rows.append([name, number(score.value if score else None), *counts])
    return "Cost of a question", "", ["arm", "score", *COUNTERS.values()], rows


def _places(scores: Mapping[str, Scores]) -> Table:
    header = [
        "arm",
        "n",
        "hit@5 %",
        "hit@2 %",
        "all shown @15 %",
        "pointing",
        "lift",
        "IoU",
        "of truth covered",
        "half covered",
    ]
    header += ["area", "P(right, hit)", "P(right, no hit)"]
    rows = [
        [
            name,
            str(len(arm.located)),
            interval(arm.hits(LARGE)),
            interval(arm.hits(SMALL)),
            interval(arm.any_hits()),
            interval(arm.pointing()),
            interval(arm.lift(), 1),
            interval(arm.iou()),
            interval(arm.coverage()),
            interval(arm.covered()),
            "" if (shown := arm.median_shown()) is None else f"{100 * shown:.1f} %",
            interval(arm.right_given(hit=True)),
            interval(arm.right_given(hit=False)),
        ]
        for name, arm in scores.items()
        if arm.located
    ]
    about = (
        "Questions with a true box. hit@a: the first region holds a true box's centre and is at most a of the page; all "
        "shown: every true box's centre lies in a region and all together are at most 15 %; pointing: the first map's peak "
        "lies in a true box; lift: its saliency in the true boxes over their area; IoU of the first region; half covered: "
        "all regions cover at least half of the true boxes' area; area: median shown closely; hits in the last two at 5 "
        "%.\n\n"
    )
    return "Places", about, header, rows


SUREST = (0.5, 0.25)
"""Shares of the answers, the surest ones."""


def _certainty(scores: Mapping[str, Scores]) -> Table:
    header = ["arm", "n", "probability", "right", "calibration error", "AUROC"]
    header += [name for share in SUREST for name in (f"from, surest {100 * share:.0f} %", "right")]
    rows = []
    for name, arm in scores.items():
        certainty, right = arm.certainties
        if not len(right):
            continue
        kept = [max(1, round(share * len(right))) for share in SUREST]
        surest = [cell for n in kept for cell in (number(certainty[n - 1], 3), interval(bootstrap_mean(list(right[:n]))))]
        claimed = np.exp(certainty)
        figures = [number(claimed.mean()), interval(bootstrap_mean(list(right)))]
        figures += [number(metrics.calibration_error(claimed, right)), number(metrics.auroc(certainty, right))]
        rows.append([name, str(len(right)), *figures, *surest])
    about = (
        "Answers given, refusals apart. probability: the mean over answers of that of their tokens, by geometric mean; "
        "calibration error: its expected distance from the share that is right, ten bins; AUROC: how often the surer of a "
        "right and a wrong answer is the right one; from: what `--min-certainty` leaves the surest part.\n\n"
    )
    return "Certainty", about, header, rows


def _official(scores: Mapping[str, Scores]) -> Table:
    """The parts of the official aggregate, groups apart: POPE's F1 and share of yes, say."""
    parts = list(dict.fromkeys(name for arm in scores.values() for name in arm.official if "/" not in name))
    rows = [[name, *(number(arm.official.get(part), 4) for part in parts)] for name, arm in scores.items()]
    return "Official figures", "", ["arm", *parts], rows if len(parts) > 1 else []


def _by(scores: Mapping[str, Scores], what: str, group: Callable[[Row], str]) -> Table:
    """Score and share of right answers by group or quality, a column an arm."""
    names = list(dict.fromkeys(group(row) for arm in scores.values() for row in arm.rows))
    rows = []
    for name in names if len(names) > 1 else ():
        parts = [arm.where(lambda row, name=name: group(row) == name) for arm in scores.values()]  # type: ignore[misc]
        cells = [f"{_mean(part)} / {number(_share(part))}" for part in parts]
        rows.append([name, str(max(len(part.rows) for part in parts)), *cells])
    return f"Score / exact match by {what}", "", [what, "n", *scores], rows


def _mean(part: Scores) -> str:
    return interval(bootstrap_mean([row.score for row in part.rows if row.result.scores]))


def _share(part: Scores) -> float | None:
    return metrics.mean([float(row.right) for row in part.rows if row.result.scores])


def _hits_by_group(scores: Mapping[str, Scores]) -> Table:
    arms = {name: arm for name, arm in scores.items() if arm.located}
    groups = list(dict.fromkeys(row.result.group for arm in arms.values() for row in arm.located))
    rows = []
    for group in groups if len(groups) > 1 else ():
        parts = [[row for row in arm.located if row.result.group == group] for arm in arms.values()]
        cells = [interval(bootstrap_mean([row.hit(LARGE) for row in part])) for part in parts]
        rows.append([group, str(max(len(part) for part in parts)), *cells])
    return "hit@5 % by group", "", ["group", "n", *arms], rows


def _others(scores: Mapping[str, Scores]) -> Table:
    compared = others(scores)
    adjusted = holm([found.test.p for _, _, found in compared])
    rows = [
        [
            f"{a} - {b}",
            str(found.count),
            interval(found.difference, sign=True),
            f"{found.test.wins} : {found.test.losses}",
            number(found.test.p, 3),
            number(p, 3),
        ]
        for (a, b, found), p in zip(compared, adjusted, strict=True)
    ]
    return "Between arms", "", ["arms", "n", "difference in score", "wins : losses", "p alone", "p"], rows


CSV_HEADER = ("dataset", "split", "disturbance", "model", "weights", "dtype", "arm", "quantity", "n", "value", "low", "high")


def as_csv(scores: Mapping[str, Scores]) -> str:
    """All figures, one a line: what the tables round is here in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    between: dict[str, list[Quantity]] = {name: [] for name in scores}
    for name, other, found in others(scores):
        between[name] += _against(other, found)
    for name, arm in scores.items():
        result = arm.rows[0].result
        about = (result.dataset, result.split, result.disturbance, result.model, result.weights, result.dtype, name)
        for quantity, count, value in (*quantities(arm, baseline(scores, name)), *between[name]):
            parts = (value.value, value.low, value.high) if isinstance(value, Interval) else (value, "", "")
            if parts[0] is not None:
                writer.writerow((*about, quantity, count, *parts))
    return out.getvalue()


Quantity = tuple[str, int, Interval | float | None]
"""A figure: its name, over how many questions, its value."""


def _against(other: str, found: Comparison) -> list[Quantity]:
    return [
        (f"score - {other}", found.count, found.difference),
        (f"wins over {other}", found.count, float(found.test.wins)),
        (f"losses to {other}", found.count, float(found.test.losses)),
        (f"McNemar's p against {other}", found.count, found.test.p),
    ]


def quantities(arm: Scores, plain: Scores | None) -> list[Quantity]:
    """Every figure of an arm."""
    everyone, located = len(arm.rows), len(arm.located)
    against = difference(arm, plain) if plain is not None else None
    refusals = arm.refusals()
    found: list[Quantity] = [("score", everyone, arm.score()), ("right", everyone, arm.right())]
    if against:
        found += _against("plain", against)
    found += [
        ("wrong of answered", everyone, arm.wrong_answers()),
        ("refusal precision", everyone, refusals.precision),
        ("refusal recall", everyone, refusals.recall),
        ("refusal F1", everyone, arm.refusal_f1()),
        *_certainty_quantities(arm),
        ("failed", everyone, float(arm.failures())),
        ("hit@5%", located, arm.hits(LARGE)),
        ("hit@2%", located, arm.hits(SMALL)),
        ("all shown@15%", located, arm.any_hits()),
        ("pointing", located, arm.pointing()),
        ("lift", located, arm.lift()),
        ("IoU", located, arm.iou()),
        ("of truth covered", located, arm.coverage()),
        ("half covered", located, arm.covered()),
        ("median area shown", everyone, arm.median_shown()),
        ("P(right, hit)", located, arm.right_given(hit=True)),
        ("P(right, no hit)", located, arm.right_given(hit=False)),
    ]
    found += [(f"mean {what}", everyone, arm.spent(what)) for what in COUNTERS]
    return found + [(f"official {name}", everyone, value) for name, value in arm.official.items()]


def _certainty_quantities(arm: Scores) -> list[Quantity]:
    certainty, right = arm.certainties
    return [
        ("calibration error", len(right), metrics.calibration_error(np.exp(certainty), right)),
        ("AUROC of certainty", len(right), metrics.auroc(certainty, right)),
    ]


def table(header: Cells, rows: Sequence[Cells]) -> str:
    """A Markdown table; all columns but the first are set right."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """A figure, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"


def interval(found: Interval | None, digits: int = 2, *, sign: bool = False) -> str:
    """A figure with its interval, or nothing."""
    if found is None:
        return ""
    plus = "+" if sign else ""
    return f"{found.value:{plus}.{digits}f} [{found.low:{plus}.{digits}f}, {found.high:{plus}.{digits}f}]"
