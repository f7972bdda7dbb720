import importlib.util
import json
import sys

import pytest
from PIL import Image

from tests.runs import ROOT


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location(
        'plot_zero_shot', ROOT / 'tools/analysis_tools/plot_zero_shot.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({k.replace('__', '/'): values[k] for k in values}))
    return path


@pytest.fixture
def results(tmp_path):
    """COCO's in [0, 1] as MMDetection gives them, others in per cent."""
    kpu = tmp_path / 'kpu'
    write(kpu / '1' / '1.json', coco__bbox_mAP=0.1)
    write(kpu / '2' / '2.json', coco__bbox_mAP=0.43, data_time=1.0)
    write(kpu / '3' / 'config.json', coco__bbox_mAP=0.9)
    clip = write(tmp_path / 'clip.json', accuracy__top1=68.4)
    more = write(tmp_path / 'more.json', accuracy__top1=70.0, mIoU=12.5)
    return [f'KPU={kpu}', f'CLIP={clip}', f'KPU={more}']


def test_reads_values(tool, results):
    assert tool.read_results(results) == {
        'coco/bbox_mAP': {'KPU': pytest.approx(43)},
        'accuracy/top1': {'CLIP': 68.4, 'KPU': 70.0},
        'mIoU': {'KPU': 12.5},
    }


def test_draws_them(tool, results, tmp_path, monkeypatch):
    figure = tool.plot(tool.read_results(results))
    heights = [[bar.get_height() for bar in axis.patches] for axis in figure.axes]
    assert heights == [[68.4, 70.0], [pytest.approx(43)], [12.5]]
    first, second = (axis.patches for axis in figure.axes[:2])
    assert first[1].get_facecolor() == second[0].get_facecolor()  # KPU's
    assert first[0].get_facecolor() != second[0].get_facecolor()
    out = tmp_path / 'new' / 'zero_shot.png'
    monkeypatch.setattr(sys, 'argv', ['plot', str(out), *results])
    tool.main()
    with Image.open(out) as picture:
        assert picture.width > picture.height


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['KPU'], 'write NAME=PATH'),
        (['KPU=nowhere'], 'holds no result'),
        (['KPU={}/empty.json'], 'none of the metrics'),
        (['KPU={}/broken.json'], 'not valid JSON'),
        (['KPU={}/clip.json', 'KPU={}/clip.json'], 'two results'),
    ],
)
def test_clear_messages(tool, results, arguments, message, tmp_path, capsys):
    write(tmp_path / 'empty.json', loss=1.0)
    (tmp_path / 'broken.json').write_text('{')
    with pytest.raises(SystemExit):
        tool.read_results([a.format(tmp_path) for a in arguments])
    assert message in capsys.readouterr().err
