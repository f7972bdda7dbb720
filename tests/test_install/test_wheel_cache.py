import sys
import zipfile

import pytest
from wheel_cache import cache_key, cached_wheel, target_device, wheel_folder


def test_key_tells_apart_what_a_binary_depends_on():
    keys = {
        cache_key('2.3.6', '2.10.0+cu128', 'cpu'),
        cache_key('2.3.7', '2.10.0+cu128', 'cpu'),
        cache_key('2.3.6', '2.10.0+cpu', 'cpu'),
        cache_key('2.3.6', '2.10.0+cu128', 'cuda9.0'),
        cache_key('2.3.6', '2.10.0+cu128', 'cuda8.0;9.0'),
    }
    assert len(keys) == 5
    for key in keys:
        assert sys.implementation.cache_tag in key
        assert not set(key) & set('/; ')


def test_device(monkeypatch):
    torch = pytest.importorskip('torch')
    monkeypatch.delenv('FORCE_CUDA', raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert target_device() == 'cpu'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(
        torch.cuda, 'get_device_capability', lambda i: [(9, 0), (8, 0)][i]
    )
    monkeypatch.delenv('TORCH_CUDA_ARCH_LIST', raising=False)
    assert target_device() == 'cuda8.0;9.0'
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '9.0')
    assert target_device() == 'cuda9.0'


def test_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv('KPU_MM_CACHE', str(tmp_path))
    assert wheel_folder('2.3.6').parent == tmp_path / 'wheels'
    monkeypatch.delenv('KPU_MM_CACHE')
    monkeypatch.setenv('HOME', str(tmp_path))
    parent = wheel_folder('2.3.6').parent
    assert parent == tmp_path / '.cache' / 'kpu_mm' / 'wheels'


def test_whole_wheel_is_found_and_a_damaged_one_removed(tmp_path, capsys):
    assert cached_wheel(tmp_path) is None
    wheel = tmp_path / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('mmcv/_ext.so', bytes(5000))
    assert cached_wheel(tmp_path) == wheel
    wheel.write_bytes(wheel.read_bytes()[:3000])
    assert cached_wheel(tmp_path) is None
    assert not wheel.exists()
    assert 'damaged' in capsys.readouterr().out


def test_unfinished_copy_is_no_wheel(tmp_path):
    (tmp_path / 'mmcv.whl.part-1').write_bytes(b'')
    assert cached_wheel(tmp_path) is None
