"""What the ablation tables compare, as runs: which arms on which documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.config import GroundingConfig, VicropConfig
from pipeline.evaluation.arms import MEASURED_BY_REFERENCE, REFERENCE, Arm, parse_arm, with_preset
from pipeline.evaluation.disturb import disturbed
from pipeline.evaluation.selection import Selection
from pipeline.evaluation.tables import PaperTable, prompt_of
from pipeline.vlms.catalogue import ModelFolder


def runs(
    tables: Sequence[PaperTable], selection: Selection, model: ModelFolder, preset: str | None = None
) -> Iterator[tuple[Selection, list[Arm]]]:
    """The questions to ask and the arms to ask them with: documents as they are first, then each disturbance.

    Args:
        tables: What is to be filled.
        selection: Of the dataset whose columns are run.
        model: Arms that need more blocks than it has are left out.
        preset: Of the methods that have it, instead of their default.
    """
    dataset = selection.dataset.name
    columns = [column for table in tables for column in table.columns if column.dataset == dataset]
    for disturbance in sorted({column.disturbance for column in columns}):
        wanted = [
            with_preset(name, preset)
            for table in tables
            if any((column.dataset, column.disturbance) == (dataset, disturbance) for column in table.columns)
            for name in table.arms(model.family)
        ]
        if MEASURED_BY_REFERENCE.intersection(wanted):
            wanted.append(REFERENCE)
        arms = [parse_arm(name, model.family, prompt_of(dataset)) for name in dict.fromkeys(wanted)]
        # Arms of one configuration follow each other, as they ask the model alike; a control may need what a method showed.
        places = {arm.config.sha256: place for place, arm in reversed(list(enumerate(arms)))}
        ordered = sorted(
            (arm for arm in arms if model.blocks is None or fits(arm, model.blocks)),
            key=lambda arm: (places[arm.config.sha256], not arm.is_method),
        )
        if ordered:
            yield disturbed(selection, disturbance), ordered


def fits(arm: Arm, blocks: int) -> bool:
    """Whether a model of so many decoder blocks has the layer, the leaf or the block that an arm asks for."""
    search = arm.config.search
    if isinstance(search, VicropConfig):
        return search.variant == "pure-grad" or search.block < blocks
    if isinstance(search, GroundingConfig):
        return search.saliency.leaf < blocks and (search.saliency.layer or 0) <= blocks
    return True
