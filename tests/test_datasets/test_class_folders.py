import pytest
from PIL import Image

from kpu_mm.datasets import DataError
from kpu_mm.datasets.class_names import find_names
from kpu_mm.registry import DATASETS


@pytest.fixture
def root(tmp_path):
    """Two images of each of three classes, and a hidden folder with one."""
    for name in ('.ipynb_checkpoints', 'ant', 'bee', 'cow'):
        folder = tmp_path / 'data' / name
        folder.mkdir(parents=True)
        for i in range(1 if name.startswith('.') else 2):
            Image.new('RGB', (4, 4)).save(folder / f'{i}.png')
    return tmp_path / 'data'


def build(kind, root, **options):
    return DATASETS.build(
        dict(type=kind, _scope_='mmpretrain', data_root=str(root), pipeline=[], **options)
    )


def test_hidden_folders_are_no_classes(root):
    dataset = build('kpu_mm.CustomDataset', root)
    assert dataset.metainfo['classes'] == dataset.metainfo['folders'] == ('ant', 'bee', 'cow')
    assert dataset.get_gt_labels().tolist() == [0, 0, 1, 1, 2, 2]
    (names,) = find_names(dataset, 'the data')
    assert names.folders == names.classes == ('ant', 'bee', 'cow')


@pytest.mark.parametrize('text', ['a 1.png 0\nb.png 12\n', '\ufeffa 1.png 0\r\n\r\nb.png\t12 \n\n'])
def test_a_list_of_labels(tmp_path, text):
    (tmp_path / 'list.txt').write_bytes(text.encode())
    data = build('kpu_mm.CustomDataset', tmp_path, ann_file='list.txt').load_data_list()
    assert [(info['img_path'], info['gt_label']) for info in data] == [
        (str(tmp_path / 'a 1.png'), 0),
        (str(tmp_path / 'b.png'), 12),
    ]


@pytest.mark.parametrize('line', ['b.png', 'b.png -1', 'b.png,1', 'b.png 1.0', 'b.png cat', '7'])
def test_a_line_that_is_no_label_is_named(tmp_path, line):
    (tmp_path / 'list.txt').write_text(f'a.png 0\n{line}\n')
    with pytest.raises(DataError, match=rf"line 2 of '.*list\.txt' is '{line}'"):
        build('kpu_mm.CustomDataset', tmp_path, ann_file='list.txt')


def test_an_empty_list(tmp_path):
    (tmp_path / 'list.txt').write_text('\n')
    with pytest.raises(DataError, match=r"list\.txt' lists no images"):
        build('kpu_mm.ImageNet', tmp_path, ann_file='list.txt')


def test_mmpretrain_s_own_dataset_is_refused(root):
    with pytest.raises(ValueError, match=r"hidden folder '\.ipynb_checkpoints' for class 0"):
        find_names(build('CustomDataset', root), 'the data')


def test_a_missing_folder_is_named(root):
    metainfo = dict(classes=('ant', 'bat', 'bee', 'cow'))
    dataset = build('kpu_mm.CustomDataset', root, metainfo=metainfo)
    with pytest.raises(ValueError, match="has no 'bat'; there are 3 folders and 4 names"):
        find_names(dataset, 'the data')
    dataset = build('kpu_mm.ImageNet', root)
    with pytest.raises(ValueError, match='there are 3 folders and 1000 names'):
        find_names(dataset, 'the data')


def test_names_in_another_order_than_folders(root):
    dataset = build('kpu_mm.CustomDataset', root, metainfo=dict(classes=('bee', 'ant', 'cow')))
    with pytest.raises(ValueError, match=r"'ant'.*but 'bee' in metainfo.*=\('ant', 'bee', 'cow'\)"):
        find_names(dataset, 'the data')


def test_other_names_for_folders(root):
    words = ('Ameise', 'Biene', 'Kuh')
    dataset = build('kpu_mm.ImageNet', root, metainfo=dict(classes=words))
    (names,) = find_names(dataset, 'the data')
    assert names.classes == words and names.folders == ('ant', 'bee', 'cow')


def test_images_without_labels(root):
    assert len(build('kpu_mm.CustomDataset', root, with_label=False)) == 7


def test_folders_without_images(root):
    (root / 'dog').mkdir()
    assert build('kpu_mm.CustomDataset', root).metainfo['classes'][-1] == 'dog'
    with pytest.raises(ValueError, match='has no images in folders of classes'):
        build('kpu_mm.CustomDataset', root / 'ant')
