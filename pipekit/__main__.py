"""The command line: ``python -m pipekit``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from math import inf

from .bench import InvalidTarget, bench
from .describing.arguments import positive, positive_int
from .describing.tracebacks import hide_own_frames
from .memory.file_descriptors import beyond_standard_streams
from .reports.measurements import VERSION, Measurements


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    parser, command = _parsers()
    options = parser.parse_args(arguments)
    if 'target' not in options:
        parser.print_help()
        return 0
    if sys.stderr is not None and sys.stderr.isatty():
        print(f'measuring {options.target}; Ctrl-C ends it early', file=sys.stderr)  # noqa: T201
    try:
        measurements = _measure(options)
    except InvalidTarget as error:
        command.exit(2, f'{command.prog}: {error}\n')
    except KeyboardInterrupt:
        command.exit(130, f'{command.prog}: no batch yet\n')
    except Exception as error:
        hide_own_frames(error)
        raise
    text = json.dumps(measurements.to_dict()) if options.json else repr(measurements)
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:  # the reader has closed its end, as `head` does; discard what is still buffered
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def number(text: str) -> float:
    """A positive number."""
    return positive('it', float(text))


def whole_number(text: str) -> int:
    """A positive whole number."""
    return positive_int('it', int(text))


def _measure(options: argparse.Namespace) -> Measurements:
    with _stdout_to_stderr() if options.json else nullcontext():  # what the user's code prints is not JSON
        return bench(
            options.target,
            duration=inf if options.batches else options.seconds,
            batches=options.batches or inf,
            step=options.step / 1000,
            add_prefetch=options.prefetch,
            profile=options.profile,
        )


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser('python -m pipekit', description='Training data from small pure functions.')
    parser.add_argument('--version', action='version', version=f'pipekit {VERSION}')
    commands = parser.add_subparsers(metavar='COMMAND')
    does = 'measure how fast a pipeline gives batches, and where the time goes'
    command = commands.add_parser('bench', help=does, description=does)
    add, length = command.add_argument, command.add_mutually_exclusive_group()
    add('target', metavar='TARGET', help='a pipeline, or a function that returns one: module:name or script.py:name')
    length.add_argument('--seconds', type=number, default=10.0, metavar='S', help='how long to measure (default: 10)')
    length.add_argument('--batches', type=whole_number, metavar='N', help='measure N batches instead')
    add('--step', type=number, default=0.0, metavar='MS', help='sleep MS milliseconds per batch, as if training on it')
    add('--prefetch', action='store_true', help='append prefetch() to a pipeline without one')
    add('--profile', action='store_true', help='time every sample at every stage; implies --prefetch')
    add('--json', action='store_true', help='print everything as JSON')
    return parser, command


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    # Also for worker processes, which inherit the file descriptors of this one.
    if sys.stdout is not None:
        sys.stdout.flush()
    with beyond_standard_streams(), open(os.devnull, 'wb') as nowhere:
        stdout = os.dup(1)
        # Where standard error is closed, a library that numpy loads may have taken its descriptor.
        os.dup2(nowhere.fileno() if sys.stderr is None else 2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


if __name__ == '__main__':
    given = sys.argv[1:]
    del sys.argv[1:]  # they are not arguments of the user's script
    sys.exit(main(given))
