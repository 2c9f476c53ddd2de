"""Odd AnnData by the thousand: each must fit, or get one clear error and leave nothing behind.

    python workflows/fuzz.py --inputs 2000

Prints how many inputs were tried and what became of them, and every input that broke the rule; then exits with 1.
"""

import argparse
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from odd_inputs import Case, attempt, cases


def main() -> None:
    """Try them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default: 0)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # on so little data threads only wait for each other
    outcomes: Counter[str] = Counter()
    traits: Counter[str] = Counter()
    broken: dict[str, Case] = {}
    begin = time.perf_counter()

    @seed(options.seed)
    @settings(
        max_examples=options.inputs,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def try_one(case: Case) -> None:
        with TemporaryDirectory() as folder:
            try:
                outcomes[attempt(case, Path(folder))] += 1
            except Exception as error:  # whatever it is, it breaks the rule, and the others are tried all the same
                outcomes["BROKEN"] += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                broken.setdefault(f"{type(error).__name__} {where.filename}:{where.lineno}: {error}"[:400], case)
        kind = f"format {case.format}" if case.surface == "format" else case.surface
        for trait in (kind, case.form, case.dtype, f"content {case.content}"):
            traits[trait] += 1
        if sum(outcomes.values()) % 100 == 0:
            print(f"{sum(outcomes.values())} inputs, {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)

    try_one()
    print(f"{sum(outcomes.values()):,} inputs tried in {time.perf_counter() - begin:.0f} s")
    for kind, number in outcomes.most_common():
        print(f"{number:7,}  {kind}")
    print("of which " + ", ".join(f"{number:,} {trait}" for trait, number in traits.most_common()))
    for said, case in broken.items():
        print(f"\n{said}\n    {case}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
