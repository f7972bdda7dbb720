"""Docstrings list the arguments that signatures have, in their order."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'kpu_mm'
PROJECTS = ROOT / 'projects'


def arguments(function):
    spec = function.args
    positional = [a.arg for a in (*spec.posonlyargs, *spec.args)]
    is_class_method = any(getattr(d, 'id', '') == 'classmethod' for d in function.decorator_list)
    if positional[:1] == ['self'] or is_class_method:
        positional = positional[1:]
    star = [a.arg for a in (spec.vararg,) if a]
    keywords = [a.arg for a in spec.kwonlyargs]
    stars = [a.arg for a in (spec.kwarg,) if a]
    return positional + star + keywords + stars


def documented(docstring):
    """Names below ``Args:``; None without such a section."""
    match = re.search(r'^Args:\n((?:(?:    .*)?\n?)*)', docstring, re.M)
    if match is None:
        return None
    return re.findall(r'^ {4}\*{0,2}(\w+):', match[1], re.M)


def owners(path):
    """Docstrings and the functions whose arguments they describe."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                if getattr(child, 'name', '') == '__init__':
                    yield node, child
        elif isinstance(node, ast.FunctionDef):
            yield node, node


@pytest.mark.parametrize(
    'path',
    sorted([*PACKAGE.rglob('*.py'), *PROJECTS.rglob('*.py')]),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_args_sections_match_signatures(path):
    for node, function in owners(path):
        names = documented(ast.get_docstring(node) or '')
        if names is not None:
            assert names == arguments(function), f'{path}: {node.name}'


@pytest.mark.parametrize(
    'path', sorted(PACKAGE.rglob('*.py')), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_the_library_imports_no_project(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or '']
        else:
            continue
        assert not [n for n in names if n.split('.')[0] == 'projects']
