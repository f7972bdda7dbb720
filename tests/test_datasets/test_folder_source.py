from __future__ import annotations

import errno
import fcntl
import os
import pickle
import shutil

import pytest

from kpu_mm.datasets import FolderSource

from .conftest import encode


def names(source):
    return [source.name(i) for i in range(len(source))]


def test_lists_the_tree_in_order(images):
    source = FolderSource(str(images))
    assert names(source) == sorted(map(str, images.rglob('*.JPEG')))
    assert source.read(3) == encode(6, (46, 54))
    copy = pickle.loads(pickle.dumps(source))
    assert names(copy) == names(source)


@pytest.mark.parametrize('change', ['add', 'remove', 'rename', 'folder'])
def test_any_change_of_the_tree_is_noticed(images, change):
    before = names(FolderSource(str(images)))
    path = images / 'n0' / '02.JPEG'
    if change == 'add':
        (images / 'n1' / 'new.jpg').write_bytes(b'x')
    elif change == 'remove':
        path.unlink()
    elif change == 'rename':
        path.rename(images / 'n0' / 'b.jpg')
    else:
        shutil.copytree(images / 'n0', images / 'n2')
    found = {str(p) for p in images.rglob('*') if p.suffix in ('.jpg', '.JPEG')}
    assert set(names(FolderSource(str(images)))) == found != set(before)


def test_unchanged_tree_is_not_scanned_again(images, monkeypatch):
    FolderSource(str(images))
    from kpu_mm.datasets import image_sources

    scans = []
    scan = image_sources._scan
    monkeypatch.setattr(image_sources, '_scan', lambda *args: (scans.append(1), scan(*args)))
    FolderSource(str(images))
    assert not scans
    FolderSource(str(images), refresh=True)
    assert len(scans) == 1


@pytest.mark.parametrize('code', [errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks(images, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, 'flock', flock)
    if code == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(code)):
            FolderSource(str(images))
        return
    assert len(FolderSource(str(images))) == 12


def test_extensions_choose_the_files(images):
    assert len(FolderSource(str(images), extensions=('TXT',))) == 1
    assert len(FolderSource(str(images))) == 12


def test_missing_empty_and_circular_folders_say_so(images):
    with pytest.raises(ValueError, match=r'nowhere.*does not exist'):
        FolderSource(str(images / 'nowhere'))
    with pytest.raises(ValueError, match=r'images.*holds no file.*\.gif'):
        FolderSource(str(images), extensions=('gif',))
    (images / 'n0' / 'up').symlink_to(images)
    with pytest.raises(ValueError, match='links back'):
        FolderSource(str(images))
