"""Take the mean of training checkpoints: `python -m ops.train.average FOLDER FOLDER ... TARGET`."""

import argparse
from pathlib import Path

from ops.train.checkpoint import average


def main() -> None:
    """Parse the command line and average."""
    parser = argparse.ArgumentParser(prog="python -m ops.train.average", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="checkpoints; one named twice counts twice")
    parser.add_argument("target", type=Path, help="what to write; goes on from the first folder's steps")
    arguments = parser.parse_args()
    average(arguments.folders, arguments.target)


if __name__ == "__main__":
    main()
