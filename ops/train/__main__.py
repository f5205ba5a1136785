"""Train the embedded model: `python -m ops.train --minutes 120`. Started again, it goes on from its last checkpoint."""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from ops.train.checkpoint import State, take_reader
from ops.train.recipe import Run, Trainer
from ops.train.stages import STAGES


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m ops.train", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".train/run"), help="checkpoint and log (default: .train/run)")
    parser.add_argument("--minutes", type=float, required=True, help="save and stop after so many minutes")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw documents")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training process, on a CPU")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the stages' time; 1 is for two CPU cores")
    parser.add_argument(
        "--rate", type=float, default=1.0, help="factor of the learning rates: below 1 refines what is trained"
    )
    parser.add_argument("--stages", nargs="*", choices=[s.name for s in STAGES], help="only these stages")
    parser.add_argument("--again", action="store_true", help="begin another round of these stages, whatever is over")
    parser.add_argument("--seed", type=int, default=1, help="of a run that starts from nothing")
    parser.add_argument("--layers", type=int, default=5, help="language layers of a run that starts from nothing")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--nice", type=int, default=19, help="priority, 19 the lowest")
    parser.add_argument("--eyes", type=Path, help="take the reader from the checkpoint in this folder")
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    torch.set_num_threads(arguments.threads)
    stages = tuple(
        replace(s, learning_rate=s.learning_rate * arguments.rate)
        for s in STAGES
        if not arguments.stages or s.name in arguments.stages
    )
    run = Run(arguments.folder, arguments.minutes, arguments.workers, arguments.scale, stages, arguments.device)
    fresh = State(arguments.seed, arguments.layers)
    trainer = Trainer(run, fresh)
    if arguments.eyes:
        take_reader(trainer.model, arguments.eyes)
    if arguments.again:
        for stage in stages:
            trainer.state.begin_again(stage.name)
    trainer.train()


if __name__ == "__main__":
    main()
