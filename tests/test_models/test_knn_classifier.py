import pytest
import torch
from mmpretrain.structures import DataSample

from kpu_mm.registry import MODELS

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
    backbone = dict(
        type='kpu_mm.KPUBackbone',
        sentinel=dict(TINY),
        inplanes=8,
        out_type='summary',
    )
    return MODELS.build(
        dict(
            type='kpu_mm.KNNClassifier',
            backbone=backbone,
            num_classes=5,
            k=3,
            data_preprocessor=dict(
                type='mmpretrain.ClsDataPreprocessor', num_classes=5
            ),
        )
    ).eval()


@torch.no_grad()
def test_finds_each_image_of_its_bank(model):
    images = torch.randn(5, 3, 56, 56)
    features = model(images)
    summary = model.backbone.extract(images).summary
    torch.testing.assert_close(
        features, summary / summary.norm(dim=1, keepdim=True)
    )
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
