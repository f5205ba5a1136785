"""Export a training checkpoint as the shipped model: `python -m ops.train.export FOLDER TARGET`.

Writes what `from_pretrained` reads (bf16 weights, configuration, tokenizer), what the trainer needs to go on, and its log,
also as a plot. The scores and the model card are written beside it by hand, from `python -m ops.train.evaluate`.
"""

import argparse
import shutil
from pathlib import Path

import torch

from ops.train.checkpoint import HEADS, LOG, STATE, load_into, new_model, state_of, take_reader
from ops.train.plot import plot_log

MAX_FILE = "15MB"
"""Files of the repository stay below 15 MiB."""


def export(folder: Path, target: Path, eyes: Path | None = None) -> None:
    """Write the model of a training checkpoint to `target`, with the reader of another one if `eyes` names its folder.

    Raises:
        FileNotFoundError: `folder` holds no checkpoint.
    """
    state = state_of(folder)
    model, tokenizer = new_model(state)
    load_into(folder, model)
    if eyes:
        take_reader(model, eyes)
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("model*.safetensors*"):
        old.unlink()
    # With the names that the trainer uses, so that a copy of the folder can be trained on; both sorts load.
    model.to(torch.bfloat16).save_pretrained(target, max_shard_size=MAX_FILE, save_original_format=False)
    tokenizer.save_pretrained(target)
    for name in (STATE, HEADS):
        shutil.copyfile(folder / name, target / name)
    log = folder / LOG
    if log.exists():
        shutil.copyfile(log, target / LOG)
        plot_log(log, target / "training.svg")


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(prog="python -m ops.train.export", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--eyes", type=Path, help="take the reader from the checkpoint in this folder")
    arguments = parser.parse_args()
    export(arguments.folder, arguments.target, arguments.eyes)


if __name__ == "__main__":
    main()
