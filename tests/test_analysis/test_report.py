import json

import numpy as np
import pytest
from PIL import Image

from kpu_mm.analysis.report import (
    areas,
    bars,
    lines,
    markdown_table,
    panels,
    picture_grid,
    write_report,
)


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


@pytest.fixture
def axis():
    return panels(1, 1)[1][0, 0]


def test_bars_stand_around_their_group(axis):
    bars(axis, dict(one=dict(a=1.0, b=2.0), two=dict(b=3.0)))
    a, b = axis.containers
    assert (a.get_label(), b.get_label()) == ('a', 'b')
    assert [p.get_height() for p in a] == [1]
    assert [p.get_height() for p in b] == [2, 3]
    centres = [p.get_x() + p.get_width() / 2 for p in (*a, *b)]
    # a pair left and right of 0, a single bar at 1
    np.testing.assert_allclose(centres, [-0.2125, 0.2125, 1])
    assert [t.get_text() for t in axis.get_xticklabels()] == ['one', 'two']


def test_lines_and_areas(axis):
    lines(axis, [1, 2], dict(a=[0.5, 0.6], b=[0.1, 0.2]))
    assert [line.get_ydata()[1] for line in axis.lines] == [0.6, 0.2]
    axis.clear()
    areas(axis, [1, 2], dict(a=[0.4, 0.3], b=[0.6, 0.7]))
    tops = [c.get_paths()[0].vertices[:, 1].max() for c in axis.collections]
    assert tops == pytest.approx([0.4, 1.0])


def test_pictures_take_the_shape_of_the_first():
    row = [np.zeros((10, 20, 3)), np.ones((4, 4, 3))]
    figure = picture_grid([row, row], ['image', 'model'])
    assert len(figure.axes) == 4
    assert [a.get_title() for a in figure.axes[:2]] == ['image', 'model']
    assert all(a.get_box_aspect() == 0.5 for a in figure.axes)
