"""Compare pipekit with hand-written loops and other libraries, print the tables, and write ``docs/benchmarks.md``.

A run of all jobs writes the page; a run of some jobs only prints. Libraries that are not installed are skipped.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from time import perf_counter

import psutil
from jobs import JOBS
from measure import run
from pictures import draw
from report import many_ranks_on, page_of, text_of, verdict_of

PAGE = Path(__file__).parents[2] / 'docs' / 'benchmarks.md'
PICTURES = PAGE.parent / 'images'
FEWEST_ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('jobs', nargs='*', metavar='job', help=f'{", ".join(JOBS)}; all of them by default')
    parser.add_argument('--rounds', type=int, default=5, help='rounds per job, 5 by default')
    parser.add_argument('--no-write', action='store_true', help='leave docs/benchmarks.md as it is')
    options = parser.parse_args()
    unknown = [name for name in options.jobs if name not in JOBS]
    if unknown:
        parser.error(f'there is no job {unknown[0]!r}; there are {", ".join(JOBS)}')
    if options.rounds < 1:
        parser.error(f'rounds must be positive, got {options.rounds}')

    start, load = perf_counter(), psutil.getloadavg()[0]
    results = []
    for name in options.jobs or JOBS:
        jobs = JOBS[name]()
        gc.collect()
        gc.freeze()  # so that collections do not traverse the imported libraries while others are measured
        for job in jobs:
            results.append(run(job, options.rounds))
            print(text_of(results[-1]), flush=True)
    print('\n'.join(verdict_of(results)))
    print(f'{perf_counter() - start:.0f} s')
    if not options.jobs and not options.no_write:
        if options.rounds < FEWEST_ROUNDS:
            parser.exit(0, f'{PAGE.name} is only written from {FEWEST_ROUNDS} rounds or more\n')
        page = page_of(
            results, options.rounds, load, PICTURES.name
        )  # before drawing, which would make the revision dirty
        for picture in PICTURES.glob('benchmark-*.png'):
            picture.unlink()
        for result in results:
            draw(result, PICTURES)
        PAGE.write_text(f'{page}\n{many_ranks_on(PAGE)}', encoding='utf-8')


if __name__ == '__main__':
    main()
