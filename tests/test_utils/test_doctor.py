import re
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch

import kpu_mm
from kpu_mm.utils import doctor

SECTIONS = ['Packages', 'Devices', 'Kernels', 'Caches', 'Environment', 'Missing']


def sections(text):
    """The lines of each section, by its title."""
    blocks = [block.splitlines() for block in re.split(r'\n(?! )', text.strip())]
    return {title: [line.strip() for line in lines] for title, *lines in blocks}


@pytest.fixture
def gpu(monkeypatch):
    """Give this process a GPU, and operators that have a fault or none."""

    def become(fault):
        properties = SimpleNamespace(name='H100', major=9, minor=0, total_memory=85e9)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
        monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda gpu: properties)
        monkeypatch.setattr(
            doctor,
            'operators_fault',
            lambda gpus, cuda: fault if (gpus, cuda) == ((0,), True) else 1,
        )

    return become


@pytest.fixture
def bare(monkeypatch):
    """Let some modules be absent."""

    def without(*modules):
        monkeypatch.setattr(doctor, 'find_spec', lambda name: name not in modules or None)

    return without


def test_report_of_this_machine(capsys, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'secret')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    found = sections(text)
    head = f'kpu_mm {kpu_mm.__version__}'
    assert list(found) == [head, *SECTIONS]
    assert sys.executable in found[head][1]
    assert f'torch {version("torch")}' in found['Packages']
    assert f'mmcv {version("onedl-mmcv")} (onedl-mmcv)' in found['Packages']
    assert len(found['Caches']) == 5
    assert 'CUDA_VISIBLE_DEVICES=' in found['Environment']
    assert 'secret' not in text


def test_gpu_with_and_without_operators(gpu, bare, capsys):
    bare()
    gpu(None)
    doctor.main([])
    found = sections(capsys.readouterr().out)
    assert 'GPU 0: H100, architecture 9.0, 85 GB' in found['Devices']
    assert found['Kernels'] == [
        "mmcv's operators are compiled, for each GPU",
        "deformable attention of the adapter: mmcv's CUDA kernel",
    ]
    gpu("mmcv's operators were compiled without CUDA")
    doctor.main([])
    found = sections(capsys.readouterr().out)
    assert found['Kernels'] == [
        "mmcv's operators were compiled without CUDA",
        "deformable attention of the adapter: torch's grid_sample",
    ]
    assert found['Missing'][0].startswith("mmcv's operators (detection")


def test_links_of_a_cache_count_once(monkeypatch, tmp_path):
    blob = tmp_path / 'hub' / 'blobs' / 'a'
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(25_000))
    (tmp_path / 'hub' / 'snapshot').symlink_to(blob)
    (tmp_path / 'mine' / 'wheels').mkdir(parents=True)
    (tmp_path / 'mine' / 'wheels' / 'w').write_bytes(bytes(1_200_000))
    monkeypatch.setattr(doctor.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setenv('KPU_MM_CACHE', str(tmp_path / 'mine'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'none'))
    lines = list(doctor.describe_caches())
    assert lines[0] == f'models of the hub: {tmp_path}/hub, 25 kB'
    assert lines[3] == f'compiled mmcv: {tmp_path}/mine/wheels, 1.2 MB'
    assert lines[4] == f'indexes of images: {tmp_path}/none/kpu_mm/index, empty'


def test_nothing_is_missing(bare, monkeypatch):
    bare()
    monkeypatch.setattr(doctor, 'operators_fault', lambda gpus, cuda: None)
    assert list(doctor.describe_missing(())) == []


@pytest.mark.parametrize('clone', [True, False])
def test_missing_comes_with_its_command(bare, monkeypatch, tmp_path, clone):
    bare('mmseg', 'onnx')
    monkeypatch.setattr(doctor, 'operators_fault', lambda gpus, cuda: None)
    monkeypatch.setattr(doctor, 'PACKAGE', tmp_path / 'a b' / 'kpu_mm')
    (tmp_path / 'a b').mkdir()
    if clone:
        (tmp_path / 'a b' / 'Makefile').touch()
        command = f"make -C '{tmp_path}/a b' install PY={sys.executable}"
    else:
        script = f"'{tmp_path}/a b/kpu_mm/.mim/tools/install/install_mm.py' --for downstream"
        command = (
            f"{sys.executable} -m pip install 'kpu_mm[downstream]' && {sys.executable} {script}"
        )
    assert list(doctor.describe_missing(())) == [
        f'mmseg (detection, segmentation, classification): {command}',
        f'onnx (export as ONNX): {sys.executable} -m pip install onnx onnxscript',
    ]
