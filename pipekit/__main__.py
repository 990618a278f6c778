"""The commands: ``python -m pipekit``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from math import inf

from .bench import bench
from .describing.arguments import positive, positive_int
from .describing.tracebacks import hide_own_frames
from .memory.file_descriptors import beyond_standard_streams
from .reports.measurements import VERSION
from .targets import NoTarget


def main(arguments: Sequence[str]) -> int:
    """Run a command, and return the exit code."""
    parser, command = _parsers()
    options = parser.parse_args(arguments)
    if 'target' not in options:
        parser.print_help()
        return 0
    if sys.stderr is not None and sys.stderr.isatty():
        print(f'measuring {options.target}; Ctrl-C ends it early', file=sys.stderr)  # noqa: T201
    try:
        with _all_to_stderr() if options.json else nullcontext():  # what the user's code prints is no JSON
            measurements = bench(
                options.target,
                duration=inf if options.batches else options.seconds,
                batches=options.batches or inf,
                step=options.step / 1000,
                ahead=options.prefetch,
                profile=options.profile,
            )
    except NoTarget as error:
        command.exit(2, f'{command.prog}: {error}\n')
    except KeyboardInterrupt:
        command.exit(130, f'{command.prog}: no batch yet\n')
    except Exception as error:
        hide_own_frames(error)
        raise
    try:
        text = json.dumps(measurements.to_dict()) if options.json else repr(measurements)
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:  # whoever reads it has seen enough; the rest of the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def number(text: str) -> float:
    """A positive number."""
    return positive('it', float(text))


def whole_number(text: str) -> int:
    """A positive whole number."""
    return positive_int('it', int(text))


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser('python -m pipekit', description='Training data from small pure functions.')
    parser.add_argument('--version', action='version', version=f'pipekit {VERSION}')
    commands = parser.add_subparsers(metavar='COMMAND')
    does = 'measure how fast a pipeline of yours gives batches, and where the time goes'
    command = commands.add_parser('bench', help=does, description=does)
    add, length = command.add_argument, command.add_mutually_exclusive_group()
    add('target', metavar='TARGET', help='a pipeline, or a function that returns one: module:name or script.py:name')
    length.add_argument('--seconds', type=number, default=10.0, metavar='S', help='how long to measure (default: 10)')
    length.add_argument('--batches', type=whole_number, metavar='N', help='how many batches to measure instead')
    add('--step', type=number, default=0.0, metavar='MS', help='sleep so many milliseconds a batch, as if training')
    add('--prefetch', action='store_true', help='put a pipeline that ends without prefetch(...) behind one')
    add('--profile', action='store_true', help='time every sample at every stage; implies --prefetch')
    add('--json', action='store_true', help='print all there is as JSON')
    return parser, command


@contextmanager
def _all_to_stderr() -> Iterator[None]:
    # What worker processes print, too: their streams are those of this process.
    if sys.stdout is not None:
        sys.stdout.flush()
    with beyond_standard_streams():
        stdout = os.dup(1)
        os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


if __name__ == '__main__':
    given = sys.argv[1:]
    del sys.argv[1:]  # none of it is for the user's script
    sys.exit(main(given))
