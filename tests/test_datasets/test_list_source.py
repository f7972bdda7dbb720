from __future__ import annotations

import os
import pickle
import tracemalloc

import numpy as np
import pytest

from kpu_mm.datasets import CorruptImageError, ListSource
from kpu_mm.datasets.image_table import ImageTable


def test_reads_what_the_list_names(tmp_path):
    (tmp_path / 'ä b.jpg').write_bytes(b'one')
    (tmp_path / 'c.jpg').write_bytes(b'two')
    listing = tmp_path / 'list.txt'
    listing.write_bytes('\r\nä b.jpg\r\n\nc.jpg\n\r\ngone.jpg'.encode())
    source = ListSource(str(listing))
    assert len(source) == 3
    assert [source.read(0), source.read(1)] == [b'one', b'two']
    assert source.name(0) == str(tmp_path / 'ä b.jpg')
    with pytest.raises(CorruptImageError, match=r'gone\.jpg: No such file'):
        source.read(2)
    with pytest.raises(IndexError):
        source.name(3)


def test_changed_list_is_indexed_again(tmp_path):
    listing = tmp_path / 'list.txt'
    listing.write_text('a\nbb\n')
    assert len(ListSource(str(listing))) == 2
    listing.write_text('ccc\nd\ne\n')
    source = ListSource(str(listing), root='/r')
    assert [source.name(i) for i in range(3)] == ['/r/ccc', '/r/d', '/r/e']


def test_million_entries_take_no_memory(tmp_path):
    listing = tmp_path / 'list.txt'
    listing.write_text(''.join(f'{i % 100:03d}/image_{i:07d}.jpg\n' for i in range(10**6)))
    ListSource(str(listing), root='')
    tracemalloc.start()
    source = ListSource(str(listing), root='')
    assert len(source) == 10**6
    assert source.name(987654) == '054/image_0987654.jpg'
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()
    assert isinstance(source._table, ImageTable)
    assert isinstance(source._table.rows.base.base, np.memmap)
    assert len(pickle.dumps(source)) < 2000
    copy = pickle.loads(pickle.dumps(source))
    assert copy.name(5) == source.name(5)


def test_interrupted_index_is_not_trusted(tmp_path, cache):
    listing = tmp_path / 'list.txt'
    listing.write_text('a\nbb\n')
    ListSource(str(listing))
    (index,) = (cache / 'kpu_mm' / 'index').glob('*.npy')
    os.truncate(index, index.stat().st_size - 4)
    assert ListSource(str(listing), root='').name(1) == 'bb'


def test_missing_and_empty_lists_say_so(tmp_path):
    with pytest.raises(ValueError, match=r'no\.txt.*does not exist'):
        ListSource(str(tmp_path / 'no.txt'))
    (tmp_path / 'empty.txt').write_text('\n\n')
    with pytest.raises(ValueError, match=r'empty\.txt.*is empty'):
        ListSource(str(tmp_path / 'empty.txt'))


LISTS = {
    'byte order mark': b'\xef\xbb\xbfa.jpg\r\nb c.jpg',
    'blanks at the end': b' \t\r\n\na.jpg \r\nb c.jpg\t \n  ',
    'two returns': b'a.jpg\r\r\nb c.jpg\r\r\n',
    'a mark alone in its line': b'\xef\xbb\xbf\r\na.jpg\nb c.jpg\n',
}


@pytest.mark.parametrize('kind', LISTS)
def test_what_editors_add_does_not_count(tmp_path, kind):
    (tmp_path / 'list.txt').write_bytes(LISTS[kind])
    source = ListSource(str(tmp_path / 'list.txt'), root='')
    assert [source.name(i) for i in range(len(source))] == ['a.jpg', 'b c.jpg']


ZEROS = ['a.jpg\n'.encode('utf-16'), 'a.jpg\n'.encode('utf-32-be'), b'a.jpg\0b.jpg\0', bytes(9)]


@pytest.mark.parametrize('content', ZEROS)
def test_zero_bytes_are_no_list(tmp_path, content):
    (tmp_path / 'list.txt').write_bytes(content)
    with pytest.raises(ValueError, match=r"list\.txt' has a zero byte at .*UTF-16"):
        ListSource(str(tmp_path / 'list.txt'))


def test_names_that_are_not_utf_8(tmp_path):
    path = os.fsencode(tmp_path) + b'/\xff\xc3\xa4\x1b.jpg'
    with open(path, 'wb') as file:
        file.write(b'one')
    listing = tmp_path / 'list.txt'
    listing.write_bytes(os.path.basename(path) + b'\n\xfe.jpg')
    source = ListSource(str(listing))
    assert source.read(0) == b'one'
    assert source.name(0) == rf'{tmp_path}/\xffä\x1b.jpg'
    with pytest.raises(CorruptImageError) as error:
        source.read(1)
    assert str(error.value).encode().endswith(rb'/\xfe.jpg: No such file or directory')


def test_damaged_numbers_are_found(tmp_path, cache):
    listing = tmp_path / 'list.txt'
    listing.write_text('a\nbb\n')
    ListSource(str(listing))
    (index,) = (cache / 'kpu_mm' / 'index').glob('*.npy')
    whole = index.read_bytes()
    index.write_bytes(whole[:-1] + b'\1')
    assert ListSource(str(listing), root='').name(1) == 'bb'
    assert index.read_bytes() == whole


@pytest.mark.parametrize('name', ['pipe.jpg', 'null.jpg'])
def test_what_is_no_file_is_a_corrupt_image(tmp_path, name):
    os.mkfifo(tmp_path / 'pipe.jpg')
    (tmp_path / 'null.jpg').symlink_to('/dev/zero')
    path = tmp_path / 'list.txt'
    path.write_text(name + '\n')
    source = ListSource(str(path), cache_dir=str(tmp_path / 'cache'))
    with pytest.raises(CorruptImageError, match='regular file'):
        source.read(0)
