import json
import runpy

import pytest
import torch
from torch.nn.functional import normalize

from kpu_mm.analysis.knn import knn_vote
from tests.runs import ROOT, metrics_of, refusal_of, run_tool

TOOL = 'analysis_tools/knn.py'
# k-NN of the student as a config says it, for tools/test.py
CONFIG = """
_base_ = {base!r}
model = dict(
    backbone=dict(
        sentinel={sentinel!r}, inplanes=8, num_interactions=2,
        init_cfg=dict(checkpoint={checkpoint!r})),
    num_classes=3, k=2, data_preprocessor=dict(num_classes=3))
data = dict(
    _delete_=True, type='CustomDataset', _scope_='mmpretrain',
    pipeline=[dict(type='LoadImageFromFile'),
              dict(type='ResizeEdge', scale=64, edge='short',
                   backend='pillow', interpolation='bicubic'),
              dict(type='CenterCrop', crop_size=56),
              dict(type='PackInputs')])
test_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root={root!r} + '/val', **data))
test_cfg = dict(bank_dataloader=dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root={root!r} + '/train', **data)))
test_evaluator = dict(topk=(1,))
del data
"""


def test_student_as_by_its_config(distilled, distilled_run, labeled, tmp_path):
    root = labeled / 'imagenet'
    done = run_tool(
        TOOL,
        *(distilled_run, distilled[1], '--size', 56, '-k', 2),
        *('--num-workers', 1),
        *('--train', root / 'train', '--test', root / 'val'),
        *('--out', tmp_path),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'knn.json').read_text())
    assert report['train_images'] == 6 and report['test_images'] == 3
    assert set(report['top1']) == {
        *('student', 'sentinel', 'teacher', 'other'),
        *('student as teacher', 'student as other'),
    }
    # the same model twice
    assert report['top1']['sentinel'] == report['top1']['teacher']
    assert (tmp_path / 'knn.md').read_text() in done.stdout
    assert (tmp_path / 'knn.png').stat().st_size > 5000

    path = tmp_path / 'config.py'
    path.write_text(
        CONFIG.format(
            base=str(ROOT / 'configs/downstream/imagenet/knn_kpu-vitb.py'),
            sentinel=distilled[0]['student']['sentinel'],
            checkpoint=str(distilled[1]),
            root=str(root),
        )
    )
    done = run_tool('test.py', path, 'none', '--work-dir', tmp_path / 'work')
    assert done.returncode == 0, done.stderr
    expected = metrics_of(tmp_path / 'work')['accuracy/top1']
    assert report['top1']['student'] == pytest.approx(expected, abs=1e-3)


def test_few_queries_are_compared_at_a_time():
    accuracy = runpy.run_path(str(ROOT / 'tools' / TOOL))['knn_accuracy']
    generator = torch.Generator().manual_seed(0)

    def vectors(count):
        features = normalize(torch.randn(count, 3, generator=generator), dim=1)
        return features, torch.randint(4, (count,), generator=generator)

    bank, queries = vectors(50), vectors(2500)
    sizes = []

    def vote(asked, *arguments):
        sizes.append(len(asked))
        return knn_vote(asked, *arguments)

    accuracy.__globals__['knn_vote'] = vote
    right = knn_vote(queries[0], *bank, 4, 5).argmax(1) == queries[1]
    assert accuracy(bank, queries, 4, 5) == 100 * right.double().mean().item()
    assert max(sizes) <= 1024 and sum(sizes) == 2500


def test_one_sentence_for_other_classes(
    distilled, distilled_run, labeled, tmp_path, monkeypatch, capsys
):
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x' / 'a.png').write_bytes(b'')
    train = labeled / 'imagenet/train'
    arguments = [distilled_run, distilled[1], '--train', train]
    line = refusal_of(TOOL, [*arguments, '--test', tmp_path], monkeypatch, capsys)
    assert 'both need the same folders' in line
