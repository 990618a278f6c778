"""What a notebook shows of batches and pipelines."""

from textwrap import dedent

import nbformat
from nbclient import NotebookClient

CELLS = [
    """
    import numpy as np
    from pipekit import apply, combine_batches, pipeline, prefetch

    def load(number):
        return np.full((4, 4), number), f'<b>{number}</b>'

    samples = pipeline(range(60), apply(load))
    samples
    """,
    """
    batches = pipeline(samples, combine_batches(3), prefetch(profile=True))
    batches
    """,
    """
    with batches:
        for images, labels in batches:
            pass
    batches
    """,
    'batches.report().plot()',
]


def test_batches_show_their_stages_and_what_these_take():
    cells = [nbformat.v4.new_code_cell(dedent(cell).strip()) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=60, kernel_name='python3').execute()
    outputs = [{kind: data for output in cell.outputs for kind, data in output.data.items()} for cell in notebook.cells]
    described, before, after, figure = outputs
    assert 'apply(load)' in described['text/html']
    assert '(int64[4, 4], str)' in described['text/html']
    assert 'combine_batches(3)' in before['text/html']
    assert 'median' not in before['text/html']
    assert 'nothing to change' in after['text/html'] or 'Training waits' in after['text/html']
    assert 'background: currentColor' in after['text/html']
    assert '<b>' not in after['text/html']
    assert 'http' not in after['text/html']
    assert figure['image/png']
