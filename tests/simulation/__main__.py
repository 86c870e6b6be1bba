"""Simulate, or tell the story of one seed: `python -m tests.simulation --seed 5285`.

python -m tests.simulation [--calls] [--jumps] [--first N] [--schedules N]
python -m tests.simulation [--calls] [--jumps] --seed N
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.simulation.runner import story_of, try_all


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for; 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, metavar="N", help="tell this schedule's story")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="begin with this seed")
    parser.add_argument("--schedules", type=int, default=2000, metavar="N", help="2000 by default")
    parser.add_argument("--most", type=int, default=20, metavar="N", help="stop at so many wrongs")
    parser.add_argument("--jumps", action="store_true", help="somebody sets the clock")
    parser.add_argument("--calls", action="store_true", help="the whole guarded call")
    asked = parser.parse_args(arguments)
    kind = "calls" if asked.calls else "verbs"
    if asked.seed is not None:
        told = story_of(asked.seed, kind, jumps=asked.jumps)
        sys.stdout.writelines(f"{line}\n" for line in told)
        return int(told[-1] != "nothing is wrong")
    began = time.process_time()
    seeds = range(asked.first, asked.first + asked.schedules)
    total = try_all(seeds, kind, jumps=asked.jumps, most=asked.most)
    told = [*total.words, f"seen: {dict(total.seen)}", f"excused: {total.excuses() or 'nothing'}"]
    spent = time.process_time() - began
    told.append(f"{total.schedules} schedules, {len(total.words)} wrong, {spent:.1f} s of one core")
    sys.stdout.writelines(f"{line}\n" for line in told)
    return int(bool(total.words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
