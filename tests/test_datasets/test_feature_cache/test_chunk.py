import pytest
import torch
from safetensors.torch import load_file

from kpu_mm.datasets.feature_cache import (
    Chunk,
    ChunkError,
    Entry,
    Stamp,
    pack,
    thumbnail,
)
from kpu_mm.structures import Features


def entry(seed, *sizes, summary=5):
    torch.manual_seed(seed)
    image = torch.randint(256, (3, 40, 50), dtype=torch.uint8)
    maps = tuple(torch.randn(1, 2 + i, *s) for i, s in enumerate(sizes))
    features = torch.randn(1, summary) if summary else None
    return Entry(Features(features, maps), thumbnail(image))


@pytest.fixture(params=[torch.float16, torch.bfloat16], ids=str)
def dtype(request):
    return request.param


@pytest.fixture
def entries():
    return [
        entry(0, (4, 5), (2, 3)),
        None,
        entry(1, (3, 6), (2, 3)),
        entry(2, (1, 1), (1, 1)),
    ]


def write(path, content):
    path.write_bytes(content)
    return path


def test_reads_what_was_packed(entries, dtype, tmp_path):
    chunk = Chunk(write(tmp_path / 'c', pack(entries, dtype)))
    assert len(chunk) == 4
    for i, expected in enumerate(entries):
        got = chunk.read(i)
        if expected is None:
            assert got is None
            continue
        assert torch.equal(got.thumbnail, expected.thumbnail)
        got, expected = got.features, expected.features
        pairs = zip(got.maps, expected.maps, strict=True)
        for a, b in [(got.summary, expected.summary), *pairs]:
            assert a.dtype == dtype and torch.equal(a, b.to(dtype))


def test_without_summaries_and_with_nothing(dtype, tmp_path):
    first = entry(0, (2, 2), summary=None)
    chunk = Chunk(write(tmp_path / 'a', pack([first, None], dtype)))
    assert chunk.read(0).features.summary is None
    assert chunk.read(0).features.maps[0].shape == (1, 2, 2, 2)
    empty = Chunk(write(tmp_path / 'b', pack([None, None], dtype)))
    assert empty.read(0) is empty.read(1) is None


def test_is_an_ordinary_safetensors_file(entries, dtype, tmp_path):
    content = pack(entries, dtype)
    assert content == pack(entries, dtype)
    tensors = load_file(write(tmp_path / 'c', content))
    assert tensors['values'].dtype == dtype
    assert tensors['offsets'].tolist()[-1] == len(tensors['values'])


def test_values_are_not_copied(entries, dtype, tmp_path):
    chunk = Chunk(write(tmp_path / 'c', pack(entries, dtype)))
    first = chunk.values.data_ptr()
    assert chunk.read(0).features.summary.data_ptr() == first


def test_every_flipped_byte_is_found(entries, tmp_path):
    content = pack(entries, torch.float16)
    path = write(tmp_path / 'c', content)
    stamp = Chunk(path).stamp
    assert stamp.size == len(content)
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        with pytest.raises(ChunkError):
            chunk = Chunk(path, stamp)
            for i in range(len(entries)):
                chunk.read(i)


@pytest.mark.parametrize('rest', [0, 4, 8, 50, -1])
def test_cut_short(entries, rest, tmp_path):
    content = pack(entries, torch.float16)
    with pytest.raises(ChunkError, match='cut short'):
        Chunk(write(tmp_path / 'c', content[:rest]))


def test_missing_or_another(entries, tmp_path):
    with pytest.raises(ChunkError, match='is missing'):
        Chunk(tmp_path / 'nothing')
    path = write(tmp_path / 'c', pack(entries, torch.float16))
    with pytest.raises(ChunkError, match='is altered'):
        Chunk(path, Stamp(path.stat().st_size, 1))


def test_values_beyond_the_type_are_refused():
    large = entry(0, (2, 2))
    large.features.maps[0][0, 1, 1, 0] = 1e5
    with pytest.raises(ValueError, match='float16 cannot hold; use bfloat16'):
        pack([large], torch.float16)
    pack([large], torch.bfloat16)
    large.features.maps[0][0, 1, 1, 0] = float('nan')
    with pytest.raises(ValueError, match='cannot hold'):
        pack([large], torch.bfloat16)


def test_thumbnails_tell_images_and_views_apart():
    image = torch.arange(64 * 96).view(1, 64, 96).float() / (64 * 96) * 255
    image = image.expand(3, -1, -1).to(torch.uint8)
    small = thumbnail(image)
    assert small.shape == (3, 4, 4)
    # rows rise from 0 to 255: each quarter's mean lies in its middle
    middles = torch.tensor([32.0, 96, 160, 223])
    assert (small[0].float().mean(1) - middles).abs().max() < 6
    other_way = thumbnail(image.flip(1)).int()
    assert (small - other_way).abs().max() > 100
    noisy = (image.int() + torch.randint(-1, 2, image.shape)).clamp(0, 255)
    assert (small - thumbnail(noisy.to(torch.uint8)).int()).abs().max() <= 2
    assert thumbnail(image[:, :2, :3]).shape == (3, 4, 4)
