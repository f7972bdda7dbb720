import os
import stat

import pytest

from projects.demo_page.uploads import NOT_UPLOADED, UploadFolder


@pytest.fixture
def folder(tmp_path, pictures):
    folder = UploadFolder(100_000, str(tmp_path))
    (tmp_path / 'secret.png').write_bytes((pictures / 'a.png').read_bytes())
    return folder


def test_what_was_stored_is_read(folder, pictures):
    data = (pictures / 'a.png').read_bytes()
    path = folder.store('../../.a b?.png', data)
    assert path.name == 'a b.png' and folder.folder in path.parents
    assert folder.read(str(path)) == data
    assert stat.S_IMODE(folder.folder.stat().st_mode) == 0o700
    folder.remove()
    assert not folder.folder.exists()


@pytest.mark.parametrize('letter', ['a', '图', '𠀀'])
def test_long_names_keep_their_end(folder, pictures, letter):
    data = (pictures / 'a.png').read_bytes()
    path = folder.store('.' * 300 + letter * 96 + ' b.png', data)
    assert path.name.endswith(f'{letter} b.png')
    assert path.name[0] != '.' and folder.read(str(path)) == data


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'no image',
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n',
        b'P6 9 9 255 ' + bytes(243),
    ],
)
def test_other_files_are_not_stored(folder, data):
    with pytest.raises(ValueError, match='not an image'):
        folder.store('a.png', data)
    assert list(folder.folder.iterdir()) == []


def test_large_files_are_neither_stored_nor_read(folder, pictures):
    data = (pictures / 'a.png').read_bytes()
    with pytest.raises(ValueError, match='maximum allowed size'):
        folder.store('a.png', data + bytes(100_000))
    # A sparse file of a terabyte; reading it would fill the memory.
    huge = folder.folder / 'huge.png'
    with huge.open('wb') as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match='maximum allowed size'):
        folder.read(str(huge))


def test_nothing_else_is_found(folder, tmp_path):
    inside = folder.folder
    # Special files and links, inside the folder and out of it.
    os.mkfifo(inside / 'fifo.png')
    (inside / 'link.png').symlink_to(tmp_path / 'secret.png')
    (inside / 'away').symlink_to(tmp_path)
    (inside / 'loop.png').symlink_to(inside / 'loop.png')
    # The name of this folder starts with that of the folder of uploads.
    sibling = tmp_path / f'{inside.name}_2'
    sibling.mkdir()
    (sibling / 'a.png').write_bytes(b'x')
    refused = [
        tmp_path / 'secret.png',
        inside / '..' / 'secret.png',
        inside / 'nosuch.png',
        inside / 'fifo.png',
        inside / 'link.png',
        inside / 'away' / 'secret.png',
        inside / 'loop.png',
        inside,
        sibling / 'a.png',
        '/dev/zero',
        '/etc/passwd',
        '/proc/self/environ',
        '/nosuch',
        'secret.png',
        f'{inside}/a\0.png',
        f'{inside}/{"a" * 5000}',
        'http://127.0.0.1/a.png',
        'file:///etc/passwd',
        '',
        None,
        3,
        b'/etc/passwd',
        ['/etc/passwd'],
        {},
    ]
    for path in refused:
        named = path if not hasattr(path, 'parts') else str(path)
        for method in (folder.find, folder.read):
            with pytest.raises(ValueError) as caught:
                method(named)
            assert str(caught.value) == NOT_UPLOADED, path
