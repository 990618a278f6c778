import linecache
import sys
import traceback

from pipekit import apply, pipeline, prefetch, processes


def load(value):
    return inner('äö', 1 / value)


def unpicklable(value):
    try:
        load(value)
    except ZeroDivisionError as error:
        error.values = (value for value in 'a')
        raise


def inner(letters, number):
    return letters, number


def train(kind):
    function = load if kind == 'load' else unpicklable
    with pipeline([0], apply(function, workers=processes(1)), prefetch()) as batches:
        try:
            list(batches)
        except Exception:
            print(traceback.format_exc())  # noqa: T201


if len(sys.argv) == 2:
    train(sys.argv[1])
else:  # as a notebook runs a cell
    with open(sys.argv[0], encoding='utf-8') as file:
        source = file.read()
    linecache.cache['cell.py'] = len(source), None, source.splitlines(keepends=True), 'cell.py'
    names = {'__name__': '__main__'}
    sys.argv.pop()
    exec(compile(source, 'cell.py', 'exec'), names)
