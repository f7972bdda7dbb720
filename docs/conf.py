"""The documentation site: `make docs` writes it to build/site.

Its source directory is the root of the repository, so that links between
pages are the same there, on a git host and in an editor.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

from mmengine.registry import Registry
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[1]
# autodoc and the cells of the quick start run this clone, offline
sys.path.insert(0, str(ROOT))
os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
os.environ.update(HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')

from kpu_mm import __version__, registry  # noqa: E402

project = 'kpu_mm'
author = 'kpu_mm contributors'
copyright = author
version = release = __version__

extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
    'sphinxcontrib.mermaid',
]
root_doc = 'README'
include_patterns = ['*.md', 'docs/**.md', 'configs/**/README.md', 'projects/**.md']
exclude_patterns = ['.*', 'build', 'dist', 'data', 'work_dirs', '**/__pycache__']

html_theme = 'furo'
html_title = f'kpu_mm {version}'
html_copy_source = False

# links to headings, `page.md#heading`
myst_heading_anchors = 3
myst_fence_as_directive = ['mermaid']
# blocks without a language hold commands
highlight_language = 'none'

nb_execution_mode = 'force'
# what the quick start writes goes with its build
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

napoleon_custom_sections = [('Keys', 'params_style')]
# in docstrings `this` is code, as in the pages
default_role = 'code'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented_params'
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}


def add_contents(_: Sphinx, page: str, source: list[str]) -> None:
    """Put the table of contents, which git hosts cannot show, below the README."""
    if page == root_doc:
        source[0] += '\n' + (ROOT / 'docs' / 'contents.txt').read_text(encoding='utf-8')


def check_reference(_: Sphinx, env: BuildEnvironment) -> None:
    """Warn of classes and functions that configs can name and the reference lacks."""
    shown = {name.rpartition('.')[2] for name, *_ in env.get_domain('py').get_objects()}
    for found in vars(registry).values():
        if not isinstance(found, Registry) or found.scope != 'kpu_mm':
            continue
        for location in [*found._locations, *getattr(found, '_late_locations', ())]:
            import_module(location)
        for name in sorted(set(found.module_dict) - shown):
            logging.getLogger(__name__).warning('the %s %s is in no page', found.name, name)


def write_start(app: Sphinx, error: Exception | None) -> None:
    """Lead from index.html, which servers look for, to the first page."""
    if error is None and app.builder.format == 'html':
        start = f'<meta http-equiv="refresh" content="0; url={root_doc}.html">\n'
        (app.outdir / 'index.html').write_text(start, encoding='utf-8')


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect('source-read', add_contents)
    app.connect('env-check-consistency', check_reference)
    app.connect('build-finished', write_start)
