import json

import pytest

from kpu_mm.datasets import build_dataset


def coco(folder, name):
    return dict(
        type='CocoDataset',
        _scope_='mmdet',
        data_root=str(folder),
        ann_file=name,
        data_prefix=dict(img=''),
        pipeline=[],
    )


@pytest.mark.parametrize('content', ['{"images": [', '[]', '{"images": [{"id": 1}]}'])
def test_broken_annotation_file(tmp_path, content):
    (tmp_path / 'a.json').write_text(content)
    with pytest.raises(RuntimeError, match=r"a\.json' is broken, or is none"):
        build_dataset(coco(tmp_path, 'a.json'))


def test_an_image_without_a_height_is_named(tmp_path):
    image = dict(id=7, file_name='a.jpg', height=None, width=40)
    annotation = dict(id=1, image_id=7, category_id=1, bbox=[1, 1, 5, 5], area=25)
    content = dict(images=[image], annotations=[annotation], categories=[dict(id=1, name='person')])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    with pytest.raises(RuntimeError, match=r"a\.json'.*image 7 has height"):
        build_dataset(coco(tmp_path, 'a.json'))


def test_missing_annotation_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'b\.json'):
        build_dataset(coco(tmp_path, 'b.json'))


def test_whole_annotation_file(tmp_path):
    content = dict(
        images=[dict(id=1, file_name='a.jpg', height=40, width=40)],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 5, 5], area=25)],
        categories=[dict(id=1, name='person')],
    )
    (tmp_path / 'a.json').write_text(json.dumps(content))
    assert len(build_dataset(coco(tmp_path, 'a.json'))) == 1
