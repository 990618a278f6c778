"""How Sphinx builds the documentation: ``sphinx-build -W --keep-going -n -b html docs docs/_build/html``."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

import pipekit

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


# Public objects say that they are in `pipekit`; their source is in the module that it imports them from.
modules = {
    alias.name: f'pipekit.{node.module}'
    for node in ast.walk(ast.parse(Path(pipekit.__file__).read_text(encoding='utf-8')))
    if isinstance(node, ast.ImportFrom) and node.level
    for alias in node.names
}


def module_with_source(app: Sphinx, module: str, name: str) -> str | None:
    """The module that a link to the source of a public object leads to."""
    return modules.get(name.partition('.')[0]) if module == 'pipekit' else None


def name_functions(app: Sphinx, what: str, name: str, of: object, options: object, signature: str, returns: str):
    """Show a function that is the default of an argument by its name."""
    return signature and re.sub(r'<function (\w+)>', r'\1', signature), returns


def setup(app: Sphinx) -> None:
    app.connect('autodoc-process-signature', name_functions)
    app.connect('source-read', link_within_docs)
    app.connect('viewcode-follow-imported', module_with_source)
