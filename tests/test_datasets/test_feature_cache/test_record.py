import json

import pytest

from kpu_mm.datasets import FolderSource, PackImage
from kpu_mm.datasets.feature_cache import (
    describe_sources,
    plain,
    read_record,
    refuse_other,
    write_record,
)


def test_types_compare_however_they_are_written():
    by_name = dict(type='kpu_mm.PackImage', size=(2, 3.5), inner=[None, True])
    by_class = dict(type=PackImage, size=[2, 3.5], inner=(None, True))
    assert plain(by_name, 'x') == plain(by_class, 'x')
    assert json.loads(json.dumps(plain(by_name, 'x'))) == plain(by_name, 'x')
    nested = plain([dict(transforms=[by_name])], 'x')
    assert nested[0]['transforms'][0]['type'].endswith('.PackImage')
    unknown = plain(dict(type='nobody.Knows'), 'x')
    assert unknown == dict(type='nobody.Knows')


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r'pipeline\[0\]\.fn is <function'):
        plain([dict(fn=plain)], 'pipeline')


def test_sources_are_told_apart_but_may_move(images, tmp_path):
    (before,) = describe_sources([FolderSource(str(images))])
    assert before['type'] == 'FolderSource' and before['images'] == 12
    moved = tmp_path / 'elsewhere'
    images.rename(moved)
    assert describe_sources([FolderSource(str(moved))]) == [before]
    (moved / 'n0' / '00.JPEG').rename(moved / 'n0' / '99.JPEG')
    (other,) = describe_sources([FolderSource(str(moved))])
    assert other['images'] == 12 and other['names'] != before['names']


def test_many_images_are_described_by_some():
    class Source:
        def __init__(self, count):
            self.count, self.asked = count, 0

        def __len__(self):
            return self.count

        def name(self, index):
            self.asked += 1
            return f'/images/{index:09d}.jpg'

    source = Source(10**7)
    many = describe_sources([source])
    assert 200 <= source.asked <= 256
    assert many != describe_sources([Source(10**7 + 1)])


def test_record_is_kept_and_guarded(tmp_path):
    record = dict(dtype='float16', views=2, versions=dict(torch='1'), x=[1.5])
    written = write_record(tmp_path / 'new', record)
    assert read_record(tmp_path / 'new') == written
    assert written | record == written
    more = write_record(tmp_path, {**record, 'views': 3, 'versions': {}})
    assert more['id'] == written['id']
    assert write_record(tmp_path, {**record, 'x': []})['id'] != written['id']
    path = tmp_path / 'record.json'
    path.write_text(path.read_text().replace('float16', 'float17'))
    with pytest.raises(ValueError, match='altered; delete it and run'):
        read_record(tmp_path)
    path.write_text('{')
    with pytest.raises(ValueError, match='altered'):
        read_record(tmp_path)
    path.unlink()
    assert read_record(tmp_path) is None


@pytest.mark.parametrize(
    'wanted, message',
    [
        (dict(a=dict(b=[1, dict(c=2)])), r'a\.b\[1\]\.c is 3 in .* and 2 her'),
        (dict(a=dict(b=[1])), r'a\.b is \[1, .* and \[1\] here'),
        (dict(a=dict(b=[1, dict(c=3)], d=4)), r'a\.d is None in .* and 4 he'),
        (dict(a=5), r'and 5 here'),
    ],
)
def test_differences_are_named(tmp_path, wanted, message):
    cached = dict(a=dict(b=[1, dict(c=3)]), rest=0)
    refuse_other(tmp_path, cached, dict(a=dict(b=[1, dict(c=3)])))
    with pytest.raises(ValueError, match=message):
        refuse_other(tmp_path, cached, wanted)
