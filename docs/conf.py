"""How Sphinx builds the documentation: ``sphinx-build -W --keep-going -n -b html docs docs/_build/html``."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

from sphinx.application import Sphinx

# Sphinx reads nothing outside its own folder: the tutorial, a notebook among the examples, is copied into it.
here = Path(__file__).parent
shutil.copy2(here.parent / 'examples' / 'tutorial.ipynb', here / 'tutorial.ipynb')

project = 'pipekit'
author = 'the developers of pipekit'
try:
    release = importlib.metadata.version('pipekit-batches')
except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
    release = ''

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.autosummary', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
exclude_patterns = ['_build']

myst_enable_extensions = ['colon_fence', 'dollarmath']
myst_heading_anchors = 3

nb_execution_mode = 'force'
nb_execution_raise_on_error = True
nb_execution_timeout = 120

napoleon_google_docstring = False
autodoc_typehints = 'none'
autodoc_member_order = 'bysource'
autosummary_generate = False

# There is no inventory of other projects to look these up in.
nitpick_ignore_regex = [
    ('py:exc', r'(Assertion|Index|Key|Type|Value|FileNotFound)Error|Exception'),
    ('py:class', r'StreamIterator|Cursor|int|str|None|matplotlib\.figure\.Figure'),
]

html_theme = 'furo'
html_title = 'pipekit'
html_show_copyright = False
html_static_path = ['_static']
html_css_files = ['pipekit.css']
html_theme_options = {'light_css_variables': {'code-font-size': '0.75rem'}}


def link_within_docs(app: Sphinx, name: str, source: list[str]) -> None:
    """Let links that are right in the repository be right in the built pages."""
    up = '../' * (1 + name.count('/'))
    source[0] = source[0].replace(f'({up}examples/tutorial.ipynb', f'({up[3:]}tutorial.ipynb')
    if name == 'tutorial':
        source[0] = source[0].replace('(../docs/', '(')


def setup(app: Sphinx) -> None:
    app.connect('source-read', link_within_docs)
