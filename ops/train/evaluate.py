"""Measure a checkpoint on held-out faces, words and templates: `python -m ops.train.evaluate FOLDER`.

An answer counts as exact when every token of it is the most likely one after the true tokens before it, which is the same
as greedy decoding giving it exactly.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration

from ops.train.batches import IGNORE, Batch, Batches, ReaderBatch
from ops.train.checkpoint import load_into, new_model, restore
from ops.train.compose import FULL, Difficulty
from ops.train.faces import Split
from ops.train.losses import answer_logits, answers, lay_out_group, mixed_precision, reader_loss
from ops.train.questions import NOT_FOUND
from ops.train.stages import Stage
from pipeline.vlms.embedded.alphabet import whole_answer_token
from pipeline.vlms.embedded.modeling import load
from pipeline.vlms.embedded.tokenizer import build_tokenizer

EVALUATION_SEED = 90_000
"""Far from any training seed."""

CARD = Difficulty(blocks=(2, 4), width_px=(420, 1000))
ARMS: tuple[Stage, ...] = (
    Stage("cards, true characters", "language", 0, difficulty=CARD, pages=6, questions=8, max_rows=22),
    Stage("cards", "joint", 0, difficulty=CARD, pages=6, questions=8, max_rows=22),
    Stage("crops", "joint", 0, difficulty=FULL, pages=4, questions=10, views=(("crop", 1.0),)),
    Stage("pages", "joint", 0, difficulty=FULL, pages=2, questions=14),
    Stage("pages and crops", "joint", 0, difficulty=FULL, pages=2, questions=14, views=(("page+crops", 1.0),)),
    Stage("sheets and crops", "joint", 0, difficulty=FULL, questions=14, views=(("page+crops", 1.0),), sheets=1.0),
)


@torch.no_grad()
def evaluate(model: LlavaForConditionalGeneration, batches: int, split: Split = "held-out") -> dict[str, object]:
    """Accuracy of the reader, and per arm of the answers.

    Args:
        model: in evaluation mode.
        batches: how many of each arm.
        split: what to draw from.
    """
    reader = Stage("reader", "reader", 0, pages=2)
    windows = Batches(EVALUATION_SEED, reader, split)
    outcomes = [reader_loss(model, batch) for n in range(batches) if isinstance(batch := windows[n], ReaderBatch)]
    report: dict[str, object] = {
        "reader": {k: round(sum(o.parts[k] for o in outcomes) / len(outcomes), 4) for k in ("accuracy", "lines", "false")}
    }
    refusal = int(build_tokenizer().convert_tokens_to_ids(whole_answer_token(NOT_FOUND)))
    for arm in ARMS:
        data = Batches(EVALUATION_SEED, replace(arm, corrupt=0.0), split)
        report[arm.name] = _arm(model, [b for n in range(batches) if isinstance(b := data[n], Batch)], refusal)
    return report


def _arm(model: LlavaForConditionalGeneration, batches: list[Batch], refusal: int) -> dict[str, object]:
    characters = [0, 0]
    tasks: dict[str, list[int]] = {}
    refused_right = refused = refusable = answered_right = 0
    for batch in batches:
        tower = model.model.vision_tower
        tokens = [model.model.multi_modal_projector(lay_out_group(tower, group, 0.0).tokens) for group in batch.groups]
        said = answer_logits(model, batch, tokens).argmax(1)
        targets = batch.targets[batch.targets != IGNORE]
        characters = [characters[0] + int((said == targets).sum()), characters[1] + len(targets)]
        for first, last, task in answers(batch):
            count = tasks.setdefault(task, [0, 0])
            exact = bool((said[first:last] == targets[first:last]).all())
            count[0] += exact
            count[1] += 1
            refuses, should = int(said[first]) == refusal, int(targets[first]) == refusal
            refused, refusable, refused_right = refused + refuses, refusable + should, refused_right + (refuses and should)
            answered_right += exact and not should
    right, n = sum(c[0] for c in tasks.values()), sum(c[1] for c in tasks.values())
    return {
        "questions": n,
        "exact": round(right / n, 3),
        "answered exact": round(answered_right / max(1, n - refusable), 3),
        "characters": round(characters[0] / characters[1], 3),
        "not-found F1": round(2 * refused_right / max(1, refused + refusable), 3),
        "exact by task": {task: [round(c[0] / c[1], 3), c[1]] for task, c in sorted(tasks.items())},
    }


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(prog="python -m ops.train.evaluate", description=__doc__)
    parser.add_argument("folder", type=Path, help="of a training checkpoint or of an exported one")
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--split", choices=("held-out", "train"), default="held-out")
    arguments = parser.parse_args()
    os.nice(19)
    state = restore(arguments.folder)
    if state is None:
        model, _ = load(arguments.folder)
    else:
        model, _ = new_model(state)
        load_into(arguments.folder, model)
        model.eval()
    with mixed_precision(torch.device("cpu")):
        report = evaluate(model, arguments.batches, arguments.split)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
