import numpy as np

from projects.demo_page.tables import box_table, class_bars, heat_range


def test_bars_are_as_long_as_the_scores():
    html = class_bars(
        dict(names=['<b>cat</b>', 'dog'], scores=[0.75, 0.0004]), topk=2
    )
    assert '<b>cat' not in html and '&lt;b&gt;cat&lt;/b&gt;' in html
    assert '<b>75.0%</b>' in html and 'width:75.0%' in html
    assert '<b>0.0%</b>' in html
    many = dict(names=['x'] * 30, scores=[0.1] * 30)
    assert class_bars(many).count('<li>') == 10


def test_boxes():
    html = box_table(
        dict(
            names=['a <i>', 'dog'],
            scores=[0.91234, 0.5],
            bboxes=[[1.2, 2.6, 30, 40], [0, 0, 9.5, 8]],
        ),
        0.25,
    )
    assert '<td>a &lt;i&gt;</td><td>0.912</td><td>1, 3, 30, 40</td>' in html
    assert html.count('<tr>') == 3
    empty = box_table(dict(names=[], scores=[], bboxes=[]), 0.3)
    assert 'No box scores more than 0.3' in empty


def test_range():
    heat = np.float32([[[-0.25, 0], [0.1, 0.5]]])
    assert '-0.250 to 0.500' in heat_range(dict(scores=heat))
