import pytest
import torch
from mmengine.config import Config
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from kpu_mm.engine import KNNTestLoop, KPURunner, Unwrapped, knn_test_loop
from kpu_mm.registry import DATASETS

TINY = dict(
    model_type='dinov2',
    hidden_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    image_size=56,
    patch_size=14,
)


@DATASETS.register_module(force=True)
class Patterns(Dataset):
    """Noisy images of five patterns, which are their classes."""

    def __init__(self, length, seed):
        self.length, self.seed = length, seed
        self.metainfo = dict(classes=tuple('abcde'))

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        pattern = torch.Generator().manual_seed(i % 5)
        image = 255 * torch.rand(3, 56, 56, generator=pattern)
        torch.manual_seed(self.seed + i)
        image = (image + 5 * torch.randn(3, 56, 56)).clamp(0, 255)
        sample = DataSample(metainfo=dict(sample_idx=i)).set_gt_label(i % 5)
        return dict(inputs=image.byte(), data_samples=sample)


def loader(length, seed):
    return dict(
        batch_size=4,
        num_workers=0,
        dataset=dict(type='kpu_mm.Patterns', length=length, seed=seed),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )


@pytest.fixture
def runner(tmp_path):
    torch.manual_seed(0)
    backbone = dict(
        type='kpu_mm.KPUBackbone',
        sentinel=dict(TINY),
        inplanes=8,
        frozen='all',
        out_type='summary',
    )
    cfg = dict(
        model=dict(
            type='kpu_mm.KNNClassifier',
            backbone=backbone,
            num_classes=5,
            k=3,
            data_preprocessor=dict(
                type='mmpretrain.ClsDataPreprocessor',
                mean=[127.0] * 3,
                std=[50.0] * 3,
            ),
        ),
        work_dir=str(tmp_path),
        test_dataloader=loader(10, 1000),
        test_evaluator=dict(type='mmpretrain.Accuracy', topk=(1,)),
        test_cfg=dict(
            type='kpu_mm.KNNTestLoop', bank_dataloader=loader(15, 0)
        ),
        default_scope='mmpretrain',
        experiment_name=tmp_path.name,
    )
    return KPURunner.from_cfg(Config(cfg))


def test_classifies_by_pattern(runner):
    assert runner.test()['accuracy/top1'] == 100
    assert isinstance(runner.test_loop, KNNTestLoop)
    assert runner.model.bank.shape == (15, 48)
    assert runner.model.labels.tolist() == 3 * [0, 1, 2, 3, 4]


def test_images_of_all_ranks_count_once(runner, monkeypatch):
    runner.test()
    features, labels = runner.test_loop.extract_bank()
    # three ranks of six images, of which the last three are repeated
    order = torch.tensor([[i * 3 + r for i in range(5)] for r in range(3)])

    def gather(part):
        whole = part[order.flatten()].view(3, 5, *part.shape[1:])
        return [torch.cat([rank, rank[:1]]) for rank in whole]

    monkeypatch.setattr(knn_test_loop, 'all_gather', gather)
    gathered = runner.test_loop.extract_bank()
    assert torch.equal(gathered[0], features)
    assert torch.equal(gathered[1], labels)


def test_loads_what_init_cfg_says(runner, monkeypatch):
    calls = []
    monkeypatch.setattr(
        runner.model.backbone, 'init_weights', lambda: calls.append(1)
    )
    runner.test()
    assert calls


def test_unwrapped():
    model = torch.nn.Linear(1, 1)
    assert Unwrapped(module=model) is model
