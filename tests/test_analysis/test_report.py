import json

from PIL import Image

from kpu_mm.analysis import markdown_table, write_report
from kpu_mm.visualization import panels


def test_table():
    text = markdown_table(['a', 'long'], [['x', 0.123456], [None, 12]])
    assert text.splitlines() == [
        '| a   | long   |',
        '| --- | ---    |',
        '| x   | 0.1235 |',
        '|     | 12     |',
    ]


def test_files(tmp_path):
    figure, _ = panels(1, 2)
    files = write_report(tmp_path / 'new', 'x', {'a →': 1}, 'text', figure)
    assert [f.name for f in files] == ['x.json', 'x.md', 'x.png']
    assert json.loads(files[0].read_text('utf-8')) == {'a →': 1}
    assert files[1].read_text() == 'text\n'
    assert Image.open(files[2]).size == (1200, 450)
    assert len(write_report(tmp_path, 'y', {}, '')) == 2
