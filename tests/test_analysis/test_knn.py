import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from kpu_mm.analysis import knn
from kpu_mm.analysis.distilled import all_models
from kpu_mm.analysis.knn import KNNTestLoop, knn_vote
from kpu_mm.engine.runner import KPURunner
from kpu_mm.registry import DATASETS, MODELS
from kpu_mm.structures import Features
from tools.analysis_tools.knn import embed, knn_accuracy


def test_a_model_without_a_summary_gives_its_coarsest_map():
    images = torch.rand(4, 3, 8, 8)
    labels = torch.tensor([0, 1, 0, 1])

    def maps(images, mask):
        return Features(None, (images.repeat(1, 2, 1, 1), images))

    (vectors, known) = embed(
        dict(m=maps), [(images[:3], labels[:3]), (images[3:], labels[3:])], torch.device('cpu')
    )['m']
    means = images.mean((2, 3))
    torch.testing.assert_close(vectors, means / means.norm(dim=1)[:, None])
    assert known.tolist() == [0, 1, 0, 1]


def test_accuracy_by_hand():
    angle = torch.tensor([0.0, 0.1, 1.5, 1.6])
    bank = (torch.stack([angle.cos(), angle.sin()], 1), torch.tensor([0, 0, 1, 1]))
    angle = torch.tensor([0.2, 1.4, 0.9, 0.3])
    # nearest neighbours: 0, 1, 1 (1.5 is closer than 0.1), 0
    queries = torch.stack([angle.cos(), angle.sin()], 1)
    labels = torch.tensor([0, 1, 0, 1])
    assert knn_accuracy(bank, (queries, labels), 2, k=1) == 50


@torch.no_grad()
def test_models_of_a_run(distilled):
    model = distilled[2]
    models = all_models(model, projected=True)
    assert set(models) == {
        'student',
        'sentinel',
        'teacher',
        'other',
        'student as teacher',
        'student as other',
    }
    images = torch.rand(2, 3, 56, 56) * 255
    summary = model.student.encode(images).summary
    expected = model.links['other'].s2t.summary(summary)
    found = models['student as other'](images, None).summary
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_student_as_a_teacher_without_summary(distilled, grounding_dino_dir):
    teacher = dict(type='kpu_mm.GroundingDINOTeacher', source=str(grounding_dino_dir))
    model = MODELS.build({**distilled[0], 'teachers': dict(gdino=teacher)})
    model.eval()
    images = torch.rand(2, 3, 64, 96) * 255
    found = all_models(model, projected=True)['student as gdino'](images, None)
    assert found.summary is None
    mlp = model.links['gdino'].s2t.maps[-1]
    coarsest = model.student.encode(images).maps[3]
    torch.testing.assert_close(found.maps[-1], mlp(coarsest.movedim(1, -1)).movedim(-1, 1))
    assert found.maps[-1].shape[1] == model.teachers['gdino'].channels[-1]


def vote_by_hand(query, bank, labels, num_classes, k, temperature):
    """DINO's equations, one neighbour at a time."""
    similarity = [sum(a * b for a, b in zip(query, feature, strict=True)) for feature in bank]
    nearest = sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]
    votes = [0.0] * num_classes
    for i in nearest:
        votes[labels[i]] += math.exp(similarity[i] / temperature)
    return [v / sum(votes) for v in votes]


@pytest.mark.parametrize(('k', 'chunk_size'), [(1, 65536), (5, 7), (20, 7), (20, 65536), (50, 11)])
def test_agrees_with_a_loop(k, chunk_size):
    generator = torch.Generator().manual_seed(k)
    bank = F.normalize(torch.randn(40, 8, generator=generator), dim=1)
    queries = F.normalize(torch.randn(6, 8, generator=generator), dim=1)
    labels = torch.randint(0, 4, (40,), generator=generator)
    shares = knn_vote(queries, bank, labels, 5, k, 0.2, chunk_size)
    expected = [
        vote_by_hand(q, bank.tolist(), labels.tolist(), 5, k, 0.2) for q in queries.tolist()
    ]
    torch.testing.assert_close(shares, torch.tensor(expected), rtol=1e-4, atol=1e-6)
    assert shares[:, 4].eq(0).all()  # nobody in the bank has this class


def test_small_temperature_does_not_overflow():
    bank = F.normalize(torch.randn(30, 4), dim=1)
    labels = torch.arange(30)
    shares = knn_vote(bank, bank, labels, 30, temperature=1e-3)
    assert torch.equal(shares.argmax(1), labels)
    torch.testing.assert_close(shares.sum(1), torch.ones(30))


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
        type='kpu_mm.KPUBackbone', sentinel=dict(TINY), inplanes=8, frozen='all', out_type='summary'
    )
    cfg = dict(
        model=dict(
            type='kpu_mm.KNNClassifier',
            backbone=backbone,
            num_classes=5,
            k=3,
            data_preprocessor=dict(
                type='mmpretrain.ClsDataPreprocessor', mean=[127.0] * 3, std=[50.0] * 3
            ),
        ),
        work_dir=str(tmp_path),
        test_dataloader=loader(10, 1000),
        test_evaluator=dict(type='mmpretrain.Accuracy', topk=(1,)),
        test_cfg=dict(type='kpu_mm.KNNTestLoop', bank_dataloader=loader(15, 0)),
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

    monkeypatch.setattr(knn, 'all_gather', gather)
    gathered = runner.test_loop.extract_bank()
    assert torch.equal(gathered[0], features)
    assert torch.equal(gathered[1], labels)


def test_loads_what_init_cfg_says(runner, monkeypatch):
    calls = []
    monkeypatch.setattr(runner.model.backbone, 'init_weights', lambda: calls.append(1))
    runner.test()
    assert calls


TINY = dict(
    model_type='dinov2',
    hidden_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    image_size=56,
    patch_size=14,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    backbone = dict(type='kpu_mm.KPUBackbone', sentinel=dict(TINY), inplanes=8, out_type='summary')
    return MODELS.build(
        dict(
            type='kpu_mm.KNNClassifier',
            backbone=backbone,
            num_classes=5,
            k=3,
            data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', num_classes=5),
        )
    ).eval()


@torch.no_grad()
def test_finds_each_image_of_its_bank(model):
    images = torch.randn(5, 3, 56, 56)
    features = model(images)
    summary = model.backbone.extract(images).summary
    torch.testing.assert_close(features, summary / summary.norm(dim=1, keepdim=True))
    labels = torch.tensor([3, 1, 0, 4, 2])
    model.set_bank(features, labels)
    assert not model.state_dict().keys() & {'bank', 'labels'}
    samples = model(images, [DataSample() for _ in images], mode='predict')
    assert [int(s.pred_label) for s in samples] == labels.tolist()
    for sample in samples:
        assert sample.pred_score.shape == (5,)
        torch.testing.assert_close(sample.pred_score.sum(), torch.tensor(1.0))


def test_refusals(model):
    images, samples = torch.randn(1, 3, 56, 56), [DataSample()]
    with pytest.raises(RuntimeError, match='KNNTestLoop'):
        model(images, samples, mode='predict')
    with pytest.raises(ValueError, match='not trained'):
        model(images, samples, mode='loss')
    with pytest.raises(ValueError, match='label 5, but num_classes is 5'):
        model.set_bank(torch.zeros(2, 48), torch.tensor([0, 5]))
