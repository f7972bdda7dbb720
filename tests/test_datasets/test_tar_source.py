from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import subprocess
import tarfile

import pytest

from kpu_mm.datasets import CorruptImageError, FolderSource, TarSource, tar_source

from .conftest import write_tar


@pytest.fixture
def shards(images, tmp_path):
    folder = FolderSource(str(images))
    for shard in range(3):
        members = {}
        for i in range(shard * 4, shard * 4 + 4):
            # A name beyond the 100 bytes of the plain tar header.
            members[f'{"long" * 30}_{i:03d}.JPG'] = folder.read(i)
            members[f'{"long" * 30}_{i:03d}.cls'] = b'7'
        write_tar(tmp_path / f's-{shard:03d}.tar', members)
    return str(tmp_path / 's-{000..002}.tar')


def test_equals_the_folder_it_was_made_of(shards, images):
    folder, tar = FolderSource(str(images)), TarSource(shards)
    assert len(tar) == len(folder) == 12
    for i in reversed(range(12)):
        assert tar.read(i) == folder.read(i)
        assert tar.name(i).endswith(f'long_{i:03d}.JPG')
        assert f's-{i // 4:03d}.tar/' in tar.name(i)
    wildcard = TarSource(shards.replace('{000..002}', '*'))
    assert [wildcard.read(i) for i in range(12)] == [folder.read(i) for i in range(12)]


def read_all(source, results):
    results.put([source.read(i) for i in range(len(source))])


def test_pickled_and_forked_copies_read(shards):
    source = TarSource(shards)
    expected = [source.read(i) for i in range(12)]
    assert len(pickle.dumps(source)) < 3000
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.read(i) for i in range(12)] == expected
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    workers = [context.Process(target=read_all, args=(source, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=30) for _ in workers] == [expected] * 2
    for worker in workers:
        worker.join()


def test_a_changed_shard_is_read_again(shards, tmp_path, images):
    assert len(TarSource(shards)) == 12
    shard = tmp_path / 's-001.tar'
    write_tar(shard, {'one.jpg': b'1', 'two.jpg': b'2'})
    source = TarSource(shards)
    assert len(source) == 10
    assert [source.read(i) for i in (4, 5)] == [b'1', b'2']


def test_joined_shards_count_whole(tmp_path):
    parts = []
    for n in range(3):
        write_tar(tmp_path / 'a.tar', {f'{n}{i}.jpg': b'x' * n for i in '01'})
        parts.append((tmp_path / 'a.tar').read_bytes())
    (tmp_path / 'joined.tar').write_bytes(b''.join(parts))
    source = TarSource(str(tmp_path / 'joined.tar'))
    assert [source.read(i) for i in range(6)] == [b'x' * n for n in (0, 0, 1, 1, 2, 2)]
    assert source.name(5).endswith('joined.tar/21.jpg')


@pytest.mark.parametrize('form', [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_every_kind(tmp_path, form, monkeypatch):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w', format=form) as tar:
        for name in ('a\nb.jpg', 'é' * 150 + '.jpg', 'a\udcff.jpg', 'd.jpg', 'd.jpg'):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(f'{tar.offset:04x}'.encode()))
        for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo(f'{kind.decode()}.jpg')
            member.type, member.linkname = kind, 'a\nb.jpg'
            tar.addfile(member)
    said: list[str] = []
    monkeypatch.setattr(tar_source, 'print_log', lambda text, *_, **__: said.append(text))
    source = TarSource(str(path))
    images = [source.read(i) for i in range(len(source))]
    # The hard link is its target; two members of one name are two images.
    assert len(set(images)) == 5 and images[5] == images[0]
    for i, name in ((0, r'/a\nb.jpg'), (2, r'/a\xff.jpg')):
        assert source.name(i).endswith(name)
    assert '1 members of the shards are links' in said[0] and "a.tar/2.jpg'" in said[0]


def test_sparse_members_are_left_out(tmp_path):
    with (tmp_path / 'sparse.jpg').open('wb') as file:
        file.truncate(1 << 20)
        file.write(b'x')
    (tmp_path / 'whole.jpg').write_bytes(b'whole')
    for names in (['whole.jpg', 'sparse.jpg'], ['sparse.jpg', 'whole.jpg']):
        command = ['tar', '-S', '-C', tmp_path, '-cf', tmp_path / 'a.tar', *names]
        subprocess.run(command, check=True)
        source = TarSource(str(tmp_path / 'a.tar'))
        assert (len(source), source.read(0)) == (1, b'whole')


@pytest.mark.parametrize(('mode', 'program'), [('gz', 'gzip'), ('bz2', 'bzip2'), ('xz', 'xz')])
def test_compressed_shards_are_named(tmp_path, mode, program):
    with tarfile.open(tmp_path / 'a.tar', f'w:{mode}') as tar:
        tar.addfile(tarfile.TarInfo('a.jpg'))
    with pytest.raises(ValueError, match=rf"a\.tar' is not.* decompress it by {program} -d"):
        TarSource(str(tmp_path / 'a.tar'))


def test_what_is_no_file_is_no_shard(tmp_path):
    os.mkfifo(tmp_path / 'pipe.tar')
    (tmp_path / 'folder.tar').mkdir()
    (tmp_path / 'empty.tar').touch()
    for name in ('pipe', 'folder'):
        with pytest.raises(ValueError, match=f'No file matches .*{name}'):
            TarSource(str(tmp_path / f'{name}.tar'))
    with pytest.raises(ValueError, match=r'empty\.tar.*\(empty file\)'):
        TarSource(str(tmp_path / '*.tar'))


def test_shard_cut_at_the_border_of_a_member(tmp_path):
    path = tmp_path / 'a.tar'
    write_tar(path, {'0.jpg': b'x' * 512, '1.jpg': b'y' * 512})
    os.truncate(path, 1024)
    with pytest.raises(ValueError, match=r"a\.tar' is cut short at 1024"):
        TarSource(str(path))


def test_shard_cut_while_training_is_a_corrupt_image(shards, tmp_path):
    source = TarSource(shards)
    os.truncate(tmp_path / 's-002.tar', 1000)
    assert source.read(0)
    with pytest.raises(CorruptImageError, match='cut short'):
        source.read(11)


def test_shard_taken_away_while_training_is_a_corrupt_image(shards, tmp_path):
    source = TarSource(shards)
    (tmp_path / 's-002.tar').unlink()
    assert source.read(0)
    with pytest.raises(CorruptImageError, match=r's-002\.tar, byte \d+: No such file'):
        source.read(11)


def test_broken_and_empty_shards_say_so(shards, tmp_path):
    size = (tmp_path / 's-000.tar').stat().st_size
    os.truncate(tmp_path / 's-000.tar', size // 4)
    with pytest.raises(ValueError, match=r's-000\.tar.*(complete|short)'):
        TarSource(str(tmp_path / 's-000.tar'))
    with pytest.raises(ValueError, match=r'No file matches.*s-009'):
        TarSource(str(tmp_path / 's-009.tar'))
    with pytest.raises(ValueError, match=r'hold no member.*\.gif'):
        TarSource(str(tmp_path / 's-001.tar'), extensions=('gif',))
