import doctest
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import pipekit

DOCS = Path(__file__).parents[1] / 'docs'
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob('*.md') if '_build' not in path.parts)
PUBLIC = {*pipekit.__all__, 'check_stage'}
DIRECTIVE = re.compile(r'^\.\. auto(?:function|class|exception):: (\w+)', re.MULTILINE)


def pycon(text):
    """What stands in the fences marked pycon, on its own lines; the other lines are empty."""
    inside = False
    for line in text.splitlines():
        inside = line == '```pycon' or (inside and line != '```')
        yield line if inside and line != '```pycon' else ''


@pytest.mark.parametrize('page', PAGES)
def test_the_examples_of_a_page_give_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = '\n'.join(pycon((DOCS / page).read_text(encoding='utf-8')))
    examples = doctest.DocTestParser().get_doctest(text, {}, page, str(DOCS / page), 0)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    report = []
    doctest.DocTestRunner(optionflags=options).run(examples, out=report.append)
    assert not report, ''.join(report)


def test_the_example_of_the_readme_trains():
    readme = (DOCS.parent / 'README.md').read_text(encoding='utf-8')
    (example, *_) = re.findall(r'^```python\n(.*?)^```', readme, re.MULTILINE | re.DOTALL)
    shapes = Counter()
    names = {
        'ids': range(50),
        'load': lambda key: (np.zeros((1, 28, 28)), key),
        'augment': lambda image, label, rng: (image + rng.random(), label),
        'step': lambda images, labels: shapes.update([(images.shape, labels.shape)]),
    }
    exec(example, names)
    assert shapes == {((30, 1, 28, 28), (30,)): 1000}


def test_every_public_name_is_in_the_reference():
    pages = [path.read_text(encoding='utf-8') for path in (DOCS / 'reference').glob('*.rst')]
    assert not PUBLIC - {name for page in pages for name in DIRECTIVE.findall(page)}


def test_the_table_of_the_reference_has_every_public_name():
    table = (DOCS / 'reference' / 'index.rst').read_text(encoding='utf-8')
    assert not PUBLIC - set(re.findall(r'^   (\w+)$', table, re.MULTILINE))
