"""``python -m benchmarks.reproduce [--quick] [--long] [--out FILE.md]``: run and write the page."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.reproduce.page import write

TARGET = Path(__file__).parents[2] / "docs" / "reproduce.md"


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="kappa 2 and 100, 5,000 iterations")
    parser.add_argument("--long", action="store_true", help="100,000 iterations of single loops")
    parser.add_argument("--out", type=Path, default=TARGET)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kappas = (2, 100) if arguments.quick else (2, 100, 1000)
    longest = 100_000 if arguments.long else 5000 if arguments.quick else 20_000
    write(arguments.out, kappas, 20_000, longest)


if __name__ == "__main__":
    main()
