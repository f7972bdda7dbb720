import json

import pytest
from mmdet.datasets import CocoDataset
from mmengine.dataset import ConcatDataset, RepeatDataset

from kpu_mm.datasets import EndlessDataset, build_dataset
from kpu_mm.datasets.class_names import (
    ClassNames,
    as_metainfo,
    difference,
    find_names,
    names_in_meta,
    read_categories,
)

ANIMALS = ('ant', 'bee', 'fly')


def coco(folder, categories, classes=ANIMALS, **options):
    """A dataset over a file with one image and one object of each category."""
    box = dict(image_id=1, bbox=[1, 1, 5, 5], area=25, segmentation=[])
    content = dict(
        categories=[dict(id=10 - i, name=name) for i, name in enumerate(categories)],
        images=[dict(id=1, file_name='a.jpg', height=40, width=40)],
        annotations=[
            # An entry of the same name, which is no list of categories.
            dict(id=i, category_id=10 - i, attributes=dict(categories=['x']), **box)
            for i in range(len(categories))
        ],
    )
    path = folder / 'a.json'
    path.write_text(json.dumps(content))
    metainfo = None if classes is None else dict(classes=classes)
    # Serialising collects all garbage, which takes a second.
    options = dict(data_prefix=dict(img=''), pipeline=[], serialize_data=False, **options)
    return CocoDataset(ann_file=str(path), metainfo=metainfo, **options)


def test_the_same_names(tmp_path):
    (names,) = find_names(coco(tmp_path, ANIMALS), 'the data')
    assert names.classes == ANIMALS and 'a.json' in names.place


def test_some_categories_of_a_file(tmp_path):
    dataset = coco(tmp_path, ('ant', 'bat', 'bee', 'fly', 'dog'))
    (names,) = find_names(dataset, 'the data')
    assert names.classes == ANIMALS
    assert [box['bbox_label'] for box in dataset[0]['instances']] == [0, 1, 2]


@pytest.mark.parametrize(
    ('categories', 'classes', 'fault', 'remedy'),
    [
        (ANIMALS[::-1], ANIMALS, "class 0 is 'fly' in the categories of", ANIMALS[::-1]),
        (('bee', 'ant', 'fly', 'dog'), ANIMALS, "but 'ant' in metainfo", ('bee', 'ant', 'fly')),
        (ANIMALS, ('ant', 'beee', 'fly'), "has no 'beee'", ANIMALS),
        (ANIMALS[:2], ANIMALS, "has no 'fly'", ANIMALS[:2]),
        # COCO's names have none of these, or few
        (ANIMALS, None, "has no 'person'", ANIMALS),
        (('cow', *ANIMALS), None, "has no 'person'", ('cow', *ANIMALS)),
        (('ant', 'ant', 'bee', 'fly'), ANIMALS, "class 1 is 'ant'", ('ant', 'ant', 'bee', 'fly')),
    ],
)
def test_other_names_in_the_file(categories, classes, fault, remedy, tmp_path):
    dataset = coco(tmp_path, categories, classes, test_mode=True)
    with pytest.raises(ValueError, match=rf'{fault}.*num_classes={len(remedy)}') as error:
        find_names(dataset, 'the data')
    assert str(error.value).endswith(as_metainfo(remedy))


def test_the_remedy_works(tmp_path):
    with pytest.raises(ValueError, match='order of the file counts') as error:
        find_names(coco(tmp_path, ANIMALS[::-1]), 'the data')
    written = eval(str(error.value).rpartition('metainfo=')[2])  # dict(classes=...)
    dataset = coco(tmp_path, ANIMALS[::-1], **written)
    (names,) = find_names(dataset, 'the data')
    assert names.classes == ('fly', 'bee', 'ant')


def test_wrapped_datasets(tmp_path):
    right = coco(tmp_path, ANIMALS)
    (tmp_path / 'b').mkdir()
    wrong = coco(tmp_path / 'b', ANIMALS[::-1])
    assert len(find_names(EndlessDataset(RepeatDataset(right, 2)), 'x')) == 1
    assert len(find_names(ConcatDataset([right, right]), 'x')) == 2
    with pytest.raises(ValueError, match=r'b/a\.json'):
        find_names(EndlessDataset(ConcatDataset([right, wrong])), 'x')


@pytest.mark.parametrize('wrapped', [False, True])
def test_own_categories_without_metainfo_cannot_be_built(wrapped, tmp_path):
    """MMDetection would find no objects and no samples."""
    coco(tmp_path, ANIMALS, None, lazy_init=True)
    config = dict(
        type='CocoDataset',
        _scope_='mmdet',
        data_root=str(tmp_path),
        ann_file='a.json',
        data_prefix=dict(img=''),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[],
    )
    if wrapped:
        config = dict(type='RepeatDataset', times=2, dataset=config)
    with pytest.raises(ValueError, match=r"'person'.*=\('ant', 'bee', 'fly'\)"):
        build_dataset(config)


def test_categories_of_files(tmp_path):
    path = tmp_path / 'a.json'
    assert read_categories(str(path)) == {}
    for text in ('', '[]', '{"categories": [', '{"categories": "x"}', '{"categories": [1]}'):
        path.write_text(text)
        assert read_categories(str(path)) == {}
    # longer than what is read at first, with letters of several bytes
    many = [dict(id=i, name=f'Tür {i}') for i in range(5000)]
    for indent in (None, 2):
        text = json.dumps(dict(categories=many, images=[]), ensure_ascii=False, indent=indent)
        path.write_text(text, encoding='utf-8')
        assert list(read_categories(str(path)).values()) == [c['name'] for c in many]


def named(*classes, place='A', **options):
    return ClassNames(place, classes, **options)


def test_differences():
    ours = named('ant', 'bee', 'fly')
    assert difference(ours, named('ant', 'bee', 'fly', place='B')) is None
    assert difference(ours, ClassNames('B')) is None
    text = difference(ours, named('ant', 'fly', 'bee', place='B'))
    assert text == "class 1 is 'bee' in A, but 'fly' in B"
    text = difference(ours, named('ant', 'fly', place='B'))
    assert text == "class 1 is 'bee' in A, but 'fly' in B; the latter has no 'bee'"
    text = difference(named('ant', 'bee', place='B'), ours)
    assert text == "class 2 is none in B, but 'fly' in A; the former has no 'fly'"
    text = difference(ours, ours._replace(place='B', reduce_zero_label=True))
    assert text == 'reduce_zero_label is False in A, but True in B'


def test_folders_may_have_other_names():
    numbers = named('n1', 'n2', 'n3', folders=('n1', 'n2', 'n3'))
    words = named('ant', 'bee', 'fly', place='B')
    assert difference(numbers, words) is None
    assert difference(words, numbers) is None
    assert difference(numbers, words._replace(folders=numbers.folders)) is None
    text = difference(numbers, words._replace(folders=('n1', 'n3')))
    assert text == "class 1 is 'n2' in A, but 'n3' in B; the latter has no 'n2'"
    # Folders that are called as the classes have their order.
    assert 'class 1' in difference(numbers, named('n1', 'n3', 'n2'))
    assert difference(numbers, named('n1', 'Two', 'n3')) is None
    assert 'class 3 is none' in difference(numbers, named('a', 'b', 'c', 'd'))


def test_names_in_meta():
    assert names_in_meta(dict(CLASSES=['a', 'b']), 'x').classes == ('a', 'b')
    assert names_in_meta({}, 'x').classes is None
    # things, the rest, and the rest with one class for all things
    panoptic = dict(classes=list('abcde'), thing_classes=['a', 'b'], stuff_classes=['c', 'd', 'e'])
    assert names_in_meta(panoptic, 'x').counts == (5, 2, 3, 4)
    with pytest.raises(ValueError, match=r"classes=\('cat',\)"):
        names_in_meta(dict(classes='cat'), 'x')


def test_long_lists_are_cut():
    assert as_metainfo(['a']) == "metainfo=dict(classes=('a',))"
    assert as_metainfo([str(i) for i in range(1203)]).endswith("'99', ... 1203 names in all))")
