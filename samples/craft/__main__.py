"""`python -m samples.craft`: write samples/crafted/ again."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from samples.craft import FAMILIES
from samples.craft.scenario import CRAFTED, Scenario, write


def scenarios() -> Iterator[tuple[str, Scenario]]:
    for family in FAMILIES:
        maker = f"samples/craft/{family.__name__.rpartition('.')[2]}.py"
        for scenario in family.scenarios():
            yield maker, scenario


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m samples.craft", description="Write the crafted captures."
    )
    parser.add_argument(
        "--into", type=Path, default=CRAFTED, help="folder to write to (default: samples/crafted)"
    )
    parser.add_argument(
        "--openssl", action="store_true", help="record the captures of real endpoints anew (root)"
    )
    arguments = parser.parse_args()
    if arguments.openssl:
        from samples.craft import benign

        benign.record_all(CRAFTED)
    arguments.into.mkdir(parents=True, exist_ok=True)
    write(scenarios(), arguments.into)


if __name__ == "__main__":
    main()
