"""``exhibit eval``: run a dataset and report; tables and figures as in the papers; ablations; parameters to choose."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pipeline.config import ObjectiveName
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.evaluation.arms import Arm
    from pipeline.evaluation.jobs import Jobs
    from pipeline.evaluation.report import Scores
    from pipeline.evaluation.results import ResultFile
    from pipeline.evaluation.selection import Selection
    from pipeline.vlms.base import Vlm
    from pipeline.vlms.catalogue import ModelFolder

PAGES = "pages"
DATASETS = (
    PAGES,
    "textvqa",
    "textvqa-boxes",
    "vstar",
    "vstar-likelihood",
    "docvqa",
    "infographicvqa",
    "pope",
    "gqa",
    "realworldqa",
    "chartqa",
    "mathvista",
    "mmmu",
    "mmbench",
    "mmbench-circular",
    "llava",
)
"""As `pipeline.evaluation.datasets.FORMATS`, whose import would cost every command's start."""
RESULTS = Path(".bench/results")
DATABASE = "exhibit.db"
LEAVES = (0, 2, 3, 4)
OBJECTIVES: tuple[ObjectiveName, ...] = ("entropy", "answer-entropy")

_EPILOG = """arms: METHOD[/PRESET][+KEY=VALUE]..., such as entropy-gradient/paper or plain; controls: plain-tiles,
plain@800 (scaled down), oracle-crop, random-crops, random-map

examples:
  python -m ops.bench_pages                                build the pages benchmark (once)
  exhibit eval pages --slice 200 --method plain --method entropy-gradient --arm oracle-crop
  exhibit eval pope --data /data/pope --model llava-hf/llava-1.5-7b-hf --method plain --method vicrop --preset paper
  exhibit eval pages --shard 2/4                           a quarter of the documents; put the files into one folder after
  exhibit eval ablations --only stopping --only regions    run what these tables compare, and print them
  exhibit eval --table 3                                   the results laid out as the paper's Table 3
  exhibit eval --summary --out ops/bench/results/eval      all that is known of results in a folder, from these alone
  exhibit eval --figure 5                                  the paper's Figure 5 on our own pages, as SVG
  exhibit eval fit --limit 100                             choose smoothing, margins, leaf and the refusal's threshold
"""


def add_parsers(commands: Any) -> None:
    """Add ``eval`` and its verbs to the command line's commands."""
    about = "measure the methods on a dataset"
    parser = commands.add_parser(
        "eval",
        help=about,
        description=about,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    laid_out = parser.add_mutually_exclusive_group()
    laid_out.add_argument("--table", type=int, metavar="1..9", help="lay results out like that table of the paper")
    laid_out.add_argument("--summary", action="store_true", help="print all that is in the folder of results")
    laid_out.add_argument("--figure", type=int, metavar="3|5|6|7|8|9|13", help="draw that figure of the paper on our pages")
    parser.add_argument("--preset", metavar="NAME", help="of the tables' methods that have it")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the pages benchmark, for figures (default: .bench/pages)")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help=f"results (default: {RESULTS})")
    _add_model(parser, default=None)
    parser.set_defaults(handler=run_laid_out)
    verbs = parser.add_subparsers(metavar="DATASET", parser_class=_VerbParser)
    for name in DATASETS:
        _add_dataset(verbs, name)
    ablations = _verb(verbs, "ablations", "run what the ablation tables compare on the pages benchmark, and print them")
    _add_data(ablations, "default: .bench/pages")
    ablations.add_argument("--preset", metavar="NAME", default=argparse.SUPPRESS, help="of those methods that have it")
    ablations.add_argument("--only", action="append", default=[], metavar="NAME", help="repeatable: a table's name")
    ablations.add_argument("--slice", type=int, metavar="N", default=200, help="so many clean questions (default: 200)")
    ablations.add_argument("--limit", type=int, metavar="N", help="N of them, spread over tasks and documents")
    ablations.add_argument("--shard", metavar="I/N", help="only the I-th of N parts of the documents, of about equal size")
    ablations.add_argument("--report", action="store_true", help="compute nothing, print the tables of what is there")
    ablations.set_defaults(handler=_alone(run_ablations), dataset=PAGES, split="test", quality=None)
    fit = _verb(verbs, "fit", "choose parameters on the validation part of the pages benchmark")
    _add_data(fit, "default: .bench/pages")
    fit.add_argument("--limit", type=int, metavar="N", help="N questions, spread over tasks and documents")
    fit.add_argument("--leaf", action="append", type=int, metavar="M", help=f"repeatable (default: {LEAVES})")
    fit.add_argument(
        "--objective",
        action="append",
        choices=get_args(ObjectiveName),
        help=f"repeatable (default: {', '.join(OBJECTIVES)})",
    )
    fit.set_defaults(handler=_alone(run_fit))


def _alone(handler: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Refuse what would be ignored: a table or figure is of all that is in the folder of results."""

    def checked(arguments: argparse.Namespace) -> int:
        if arguments.table is not None or arguments.figure is not None or arguments.summary:
            raise UsageError("--table, --figure and --summary stand alone: exhibit eval --table N, without a dataset")
        return handler(arguments)

    return checked


class _VerbParser(argparse.ArgumentParser):
    """Says which files and splits a dataset has, which takes an import that no other command should wait for."""

    def format_help(self) -> str:
        """The help text."""
        from pipeline.evaluation.datasets import FORMATS

        known = FORMATS.get(self.prog.rpartition(" ")[2])
        if known is not None:
            splits = ", ".join(known.splits)
            self.description = f"{self.description}\n\nfiles: {known.files}\nsplits: {splits} (default: {known.splits[0]})"
        return super().format_help()


def _add_dataset(verbs: Any, name: str) -> None:
    parser = _verb(verbs, name, f"run arms on {name} and report; goes on where it was stopped")
    where = "default: .bench/pages" if name == PAGES else "the official release, unpacked"
    _add_data(parser, where)
    parser.add_argument("--split", metavar="NAME", help="of the release's splits")
    parser.add_argument("--slice", type=int, metavar="N", help="N questions, as many of each group; of pages the clean ones")
    parser.add_argument("--quality", choices=("clean", "fair", "poor"), help="only pages of this quality")
    parser.add_argument("--limit", type=int, metavar="N", help="N questions, spread over groups and documents")
    parser.add_argument("--shard", metavar="I/N", help="only the I-th of N parts of the documents, of about equal size")
    parser.add_argument(
        "--method", action="append", default=[], metavar="NAME", help="repeatable: plain, entropy-gradient, …"
    )
    parser.add_argument("--preset", metavar="NAME", default=argparse.SUPPRESS, help="of those methods that have it")
    parser.add_argument("--arm", action="append", default=[], metavar="NAME", help="repeatable: see below")
    parser.add_argument("--db", metavar="URL", help="a deployment's database: its workers answer (default: answered here)")
    parser.add_argument("--report", action="store_true", help="compute nothing, report what is there")
    parser.set_defaults(handler=_alone(run_dataset), dataset=name)


def _verb(verbs: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=about,
        description=about,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, default=argparse.SUPPRESS, metavar="DIR", help=f"results (default: {RESULTS})")
    _add_model(parser, default=argparse.SUPPRESS)
    return parser


def _add_data(parser: argparse.ArgumentParser, where: str) -> None:
    parser.add_argument("--data", type=Path, default=argparse.SUPPRESS, metavar="DIR", help=f"folder ({where})")


def _add_model(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the model's options; a verb's own leave alone what was given before the verb."""
    group = parser.add_argument_group("model")
    about = "hub name or local folder (default: the embedded model); repeatable for --figure 6"
    group.add_argument("--model", action="append", default=default, metavar="NAME|PATH", help=about)
    group.add_argument("--revision", default=default, metavar="R", help="hub commit, tag or branch")
    devices = "cpu, cuda, cuda:1, … (default: a GPU if there is one)"
    group.add_argument("--device", default=default, metavar="D", help=devices)
    dtypes = "float32, bfloat16 or float16 (default: bfloat16 on a GPU)"
    group.add_argument("--dtype", default=default, metavar="T", help=dtypes)


def run_dataset(arguments: argparse.Namespace) -> int:
    """Run the arms that are missing and report."""
    from pipeline.evaluation.arms import parse_arm
    from pipeline.evaluation.tables import prompt_of

    started = time.monotonic()
    model = _model(arguments)
    selection = _selection(arguments)
    results = _results(arguments, selection, model)
    arms = [parse_arm(name, model.family, prompt_of(arguments.dataset)) for name in _arm_names(arguments, results)]
    if not arguments.report:
        _compute(arguments, model, selection, results, arms, started)
    return _report(arguments, selection, results, arms)


def _arm_names(arguments: argparse.Namespace, results: ResultFile) -> list[str]:
    """The arms asked for; else all that the file has, for a report, or the dataset's usual ones."""
    from pipeline.evaluation.arms import DEFAULT_ARMS, REFERENCE, with_controls, with_preset

    tiles = not arguments.db  # which a deployment's workers don't know
    named = with_controls([with_preset(method, arguments.preset) for method in arguments.method], tiles=tiles)
    asked = list(dict.fromkeys([*named, *with_controls(arguments.arm, tiles=False)]))
    if asked:
        return asked
    if arguments.report and results.known:
        return list(dict.fromkeys(result.arm for result in results.known.values()))
    return list(DEFAULT_ARMS) if arguments.dataset == PAGES else with_controls(["plain", REFERENCE], tiles=tiles)


def _compute(
    arguments: argparse.Namespace,
    model: ModelFolder,
    selection: Selection,
    results: ResultFile,
    arms: Sequence[Arm],
    started: float,
) -> None:
    """Answer what is not answered yet."""
    from pipeline.evaluation.summary import keep_cold_start

    with _jobs(arguments, model) as jobs:
        first = _run(jobs, selection, results, arms, started)
        if first is not None and jobs.worker is not None:
            keep_cold_start(arguments.out, model.weights_sha256, jobs.worker.vlm.identity.device, first)


def _run(jobs: Jobs, selection: Selection, results: ResultFile, arms: Sequence[Arm], started: float) -> float | None:
    """Run arms, with progress on stderr; return after how many seconds the first answer came."""
    from pipeline.evaluation.results import Result
    from pipeline.evaluation.runner import run

    times: list[float] = []

    def progress(result: Result) -> None:
        times.append(time.monotonic() - started)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{len(times)} answers, {times[-1]:.0f} s: {result.arm} {result.example}\033[K")

    run(jobs, selection, arms, results, progress)
    return times[0] if times else None


@contextmanager
def _jobs(arguments: argparse.Namespace, model: ModelFolder) -> Iterator[Jobs]:
    """The store beside the results, worked off here; or a deployment's, worked off there."""
    from pipeline.evaluation.jobs import Jobs
    from pipeline.evaluation.memory import RememberingVlm
    from pipeline.store import Store
    from pipeline.work import Worker

    url = getattr(arguments, "db", None)
    if url:
        with Store.open(url) as store:
            yield Jobs(store, model, None)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    with Store.open(f"sqlite:///{(arguments.out / DATABASE).resolve()}") as store:
        worker = Worker(store, lambda: RememberingVlm(_load(arguments)))
        try:
            yield Jobs(store, model, worker)
        finally:
            worker.close()


def _report(arguments: argparse.Namespace, selection: Selection, results: ResultFile, arms: Sequence[Arm]) -> int:
    """Print the report as Markdown; write it as Markdown, CSV and HTML beside the results."""
    from pipeline.evaluation.html import page
    from pipeline.evaluation.report import as_csv, markdown
    from pipeline.evaluation.summary import cold_starts

    scores = _scores(selection, results, arms)
    if not scores:
        raise UsageError(
            f"{results.path} has no results of these arms on these questions; leave --report out to compute them"
        )
    notes = cold_starts(arguments.out, {row.result.weights for arm in scores.values() for row in arm.rows})
    text = markdown(scores, notes)
    stem = results.path.with_suffix("")
    for suffix, content in ((".md", text), (".csv", as_csv(scores)), (".html", page(selection, scores, notes))):
        stem.with_name(stem.name + suffix).write_text(content, encoding="utf-8")
    sys.stdout.write(text)
    sys.stderr.write(f"exhibit: written to {stem}.md, .csv and .html\n")
    return 0


def _scores(selection: Selection, results: ResultFile, arms: Sequence[Arm]) -> dict[str, Scores]:
    from pipeline.evaluation.report import score
    from pipeline.evaluation.results import DIGITS

    wanted = [result for result in results.known.values() if result.disturbance == selection.disturbance]
    digests = {arm.name: arm.sha256[:DIGITS] for arm in arms}
    return score(wanted, digests, [example.example_id for example in selection.examples])


def run_ablations(arguments: argparse.Namespace) -> int:
    """Run the arms of the ablation tables that are missing, documents as they are and disturbed, and print the tables."""
    from pipeline.evaluation.ablations import runs
    from pipeline.evaluation.results import read_results
    from pipeline.evaluation.tables import ablations, render

    started = time.monotonic()
    model, selection, tables = _model(arguments), _selection(arguments), ablations(arguments.only)
    if not arguments.report:
        results = _results(arguments, selection, model)
        with _jobs(arguments, model) as jobs:
            for some, arms in runs(tables, selection, model, arguments.preset):
                _run(jobs, some, results, arms, started)
    wanted = {example.example_id for example in selection.examples}
    known = [result for result in read_results(arguments.out) if result.example in wanted]
    text = "\n".join(render(table, known, arguments.preset) for table in tables)
    (arguments.out / "ablations.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


def run_laid_out(arguments: argparse.Namespace) -> int:
    """Print a table of the paper or a summary, filled with what is in the folder of results; or draw a figure into it."""
    from pipeline.evaluation.results import read_results
    from pipeline.evaluation.summary import summary
    from pipeline.evaluation.tables import numbered, render

    if arguments.summary:
        sys.stdout.write("\n".join(summary(read_results(arguments.out), arguments.out)))
        return 0
    if arguments.table is not None:
        sys.stdout.write(render(numbered(arguments.table), read_results(arguments.out), arguments.preset))
        return 0
    if arguments.figure is None:
        raise UsageError("eval: name a dataset, --table, --figure or --summary; `exhibit eval --help` lists them")
    path = arguments.out / f"figure-{arguments.figure}.svg"
    drawn = _figure(arguments)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drawn, encoding="utf-8")
    sys.stdout.write(f"{path}\n")
    return 0


def _figure(arguments: argparse.Namespace) -> str:
    from pipeline.evaluation.figures import FIGURES, Studio, figure
    from pipeline.evaluation.results import read_results
    from pipeline.evaluation.selection import Wanted, select
    from pipeline.vlms.catalogue import EMBEDDED
    from pipeline.vlms.loading import load_vlm

    if arguments.figure not in FIGURES:
        raise UsageError(f"--figure {arguments.figure}: expected one of {', '.join(map(str, FIGURES))}")
    selection = select(PAGES, arguments.data, None, Wanted(quality="clean"))
    models = [
        load_vlm(name, revision=arguments.revision, device=arguments.device, dtype=arguments.dtype)
        for name in arguments.model or [EMBEDDED]
    ]
    return figure(arguments.figure, Studio(selection, models, read_results(arguments.out)))


def run_fit(arguments: argparse.Namespace) -> int:
    """Print the best ways from map to regions, and the best thresholds for each arm already run on the validation part."""
    from pipeline.config import SaliencyConfig
    from pipeline.evaluation.arms import parse_arm
    from pipeline.evaluation.fit import default_regions, fit_refusals, fit_regions, refusals_table, regions_table
    from pipeline.evaluation.pages import DEFAULT_FOLDER, read_benchmark

    objectives: list[ObjectiveName] = arguments.objective or list(OBJECTIVES)
    arguments.dataset, arguments.split, arguments.slice, arguments.quality = PAGES, "validation", None, None
    arguments.shard = None
    model, selection = _model(arguments), _selection(arguments)
    wanted = {example.example_id for example in selection.examples}
    benchmark = read_benchmark(arguments.data or DEFAULT_FOLDER).select("validation", wanted)
    vlm = _load(arguments)
    saliencies = [
        SaliencyConfig(objective=objective, leaf=leaf)
        for objective in objectives
        for leaf in arguments.leaf or [leaf for leaf in LEAVES if leaf < vlm.blocks]
    ]
    fitted = fit_regions(vlm, benchmark, saliencies, default_regions())
    sys.stdout.write(f"Benchmark {benchmark.sha256}, weights {vlm.identity.weights_sha256}\n\n{regions_table(fitted)}\n")
    results = _results(arguments, selection, model)
    names = dict.fromkeys(result.arm for result in results.known.values())
    for name, arm in _scores(selection, results, [parse_arm(name, model.family) for name in names]).items():
        sys.stdout.write(f"\nnot_found_margin of {name}, n = {len(arm.rows)}\n\n{refusals_table(fit_refusals(arm.rows))}\n")
    return 0


def _selection(arguments: argparse.Namespace) -> Selection:
    from pipeline.evaluation.selection import Shard, Wanted, select

    shard = Shard.parse(arguments.shard) if arguments.shard else None
    wanted = Wanted(arguments.slice, arguments.quality, arguments.limit, shard)
    return select(arguments.dataset, arguments.data, arguments.split, wanted)


def _results(arguments: argparse.Namespace, selection: Selection, model: ModelFolder) -> ResultFile:
    """The file of one dataset and one model, a shard's own; lines of all shards are known."""
    from pipeline.evaluation.results import ResultFile

    stem = f"{selection.dataset.name}-{selection.dataset.split}-{selection.sha256[:8]}-{model.weights_sha256[:8]}"
    own = f"{stem}.{arguments.shard.replace('/', '-of-')}.jsonl" if arguments.shard else f"{stem}.jsonl"
    return ResultFile(arguments.out / own, sorted(arguments.out.glob(f"{stem}*.jsonl")))


def _model(arguments: argparse.Namespace) -> ModelFolder:
    from pipeline.vlms.catalogue import find_model

    return find_model(_model_name(arguments), arguments.revision)


def _load(arguments: argparse.Namespace) -> Vlm:
    from pipeline.vlms.loading import load_vlm

    name = _model_name(arguments)
    return load_vlm(name, revision=arguments.revision, device=arguments.device, dtype=arguments.dtype)


def _model_name(arguments: argparse.Namespace) -> str:
    from pipeline.vlms.catalogue import EMBEDDED

    named = arguments.model or [EMBEDDED]
    if len(named) > 1:
        raise UsageError("--model: one at a time; run the command once for each, with the same --out")
    return str(named[0])
