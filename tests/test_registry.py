import pytest
from mmengine.registry import Registry

from kpu_mm import registry


@pytest.mark.parametrize('kind', ['model', 'transform'])
def test_without_mmdetection_an_unknown_name_says_so(kind, monkeypatch):
    late = registry.LateRegistry(
        kind,
        parent=Registry(kind, scope='mmengine'),
        locations=['kpu_mm.structures'],
        late_locations={'kpu_mm.models.mask_dino': 'mmdet'},
    )
    monkeypatch.setattr(registry, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=f"'Nothing' is no {kind} that runs"):
        late.get('Nothing')


def test_names_that_need_mmdetection_are_found():
    assert registry.MODELS.get('MaskDINOHead').__name__ == 'MaskDINOHead'
    assert registry.TRANSFORMS.get('DiagonalCrop').__name__ == 'DiagonalCrop'
