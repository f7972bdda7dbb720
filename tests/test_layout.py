"""The bounds of the layout that docs/architecture.md describes."""

import ast
import re
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'kpu_mm'
PAGE = ROOT / 'docs' / 'architecture.md'
FILES = sorted(p for p in PACKAGE.rglob('*.py') if '.mim' not in p.parts)


def docstring_lines(tree):
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines.update(range(first.lineno, first.end_lineno + 1))
    return lines


def count(path):
    """Lines of code with a word in them, lines of comments, all lines."""
    text = path.read_text(encoding='utf-8')
    documented = docstring_lines(ast.parse(text))
    code = comments = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if number in documented or not line.strip():
            continue
        if line.lstrip().startswith('#'):
            comments += 1
        else:
            code += bool(re.search(r'\w', line))
    return code, comments, len(text.splitlines())


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports_of(path, modules):
    """All imports, those in functions and for type checkers included."""
    own = module_of(path)
    package = own if path.name == '__init__.py' else own.rpartition('.')[0]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parts = package.split('.')
                parts = parts[: len(parts) - node.level + 1]
                base = '.'.join([*parts, *filter(None, [node.module])])
            for alias in node.names:
                for name in (f'{base}.{alias.name}', base):
                    if name in modules:
                        yield name
                        break


def test_few_files_of_some_length():
    code, comments, lengths = zip(*map(count, FILES), strict=True)
    assert len(FILES) <= 150
    assert 1000 * len(FILES) / sum(code) <= 13
    assert 100 <= median(lengths) <= 220
    assert max(lengths) <= 330
    assert sum(comments) >= 0.05 * sum(code)
    assert sum(code) <= 12_700


def test_no_import_cycle():
    modules = {module_of(path): path for path in FILES}
    graph = {name: set(imports_of(path, modules)) - {name} for name, path in modules.items()}
    # Modules without imports among the rest are removed until none is left.
    while leaves := [n for n, found in graph.items() if not found & set(graph)]:
        for name in leaves:
            del graph[name]
    assert not graph, f'import cycle among {sorted(graph)}'


def test_the_way_of_one_image():
    page = PAGE.read_text(encoding='utf-8')
    table = page.split('in the order of reading:')[1].split('\n\nWith')[0]
    files = re.findall(r'`([\w/]+\.py)`', table)
    assert len(files) == len(set(files)) <= 25
    for name in files:
        assert (PACKAGE / name).is_file(), name


def test_one_place_between_student_and_teacher():
    """Only TeacherLink calls the projectors and resizes to their grids."""
    for path in FILES:
        text = path.read_text(encoding='utf-8')
        if path.name == 'teacher_link.py':
            continue
        assert not re.search(r'\.(s2t|t2s|rec)\(', text), path
