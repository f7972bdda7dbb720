import pytest
import torch

from kpu_mm.analysis import all_models, load_distiller, require_term
from kpu_mm.analysis.distilled import extract_pairs, extract_sentinel
from kpu_mm.registry import MODELS

CLOSE = dict(rtol=1e-4, atol=1e-5)


def images_of(*shape):
    torch.manual_seed(0)
    return torch.randint(256, (2, 3, *shape)).float()


@torch.no_grad()
def test_sentinel_is_the_library_model(distilled):
    """`teacher` is the same folder through transformers' own forward."""
    model = distilled[2]
    images = images_of(56, 84)
    mask = torch.ones(2, 56, 84, dtype=torch.bool)
    mask[0, 28:] = False
    found = extract_sentinel(model.student, images, mask)
    expected = model.teachers['teacher'](images, mask)
    torch.testing.assert_close(found.summary, expected.summary, **CLOSE)
    torch.testing.assert_close(found.maps, expected.maps, **CLOSE)
    assert torch.equal(found.masks[0], expected.masks[0])


@torch.no_grad()
def test_loads_what_was_saved(distilled):
    config, checkpoint, model = distilled
    # compiling would show in the type
    loaded = load_distiller({**config, 'compile': dict()}, checkpoint)
    images = images_of(56, 56)
    ours, theirs = (extract_pairs(m, 'other', images) for m in (loaded, model))
    torch.testing.assert_close(ours[0].maps, theirs[0].maps)
    assert not loaded.training


@torch.no_grad()
def test_all_models(distilled):
    models = all_models(distilled[2])
    assert list(models) == ['student', 'sentinel', 'teacher', 'other']
    found = {n: m(images_of(56, 56), None) for n, m in models.items()}
    assert {n: len(f.maps) for n, f in found.items()} == dict(
        student=4, sentinel=1, teacher=1, other=1
    )


def test_a_teacher_named_like_the_student(distilled):
    config = distilled[0]
    teachers = dict(config['teachers'], sentinel=config['teachers']['other'])
    model = MODELS.build(dict(config, teachers=teachers))
    with pytest.raises(ValueError, match="named 'sentinel'"):
        all_models(model)


def test_refusals(distilled, tmp_path):
    config, checkpoint, model = distilled
    with pytest.raises(FileNotFoundError, match='nothing'):
        load_distiller(config, tmp_path / 'nothing.pth')
    with pytest.raises(ValueError, match=r'no kpu_mm\.KPUDistiller'):
        load_distiller(config['student'], checkpoint)
    fewer = dict(config, terms=dict(s2t=1.0))
    with pytest.raises(RuntimeError, match='unexpected keys'):
        load_distiller(fewer, checkpoint)
    state = torch.load(checkpoint)['state_dict']
    state = {k: v for k, v in state.items() if '.rec.' not in k}
    torch.save(dict(state_dict=state), tmp_path / 'part.pth')
    with pytest.raises(RuntimeError, match=r'missing keys.*rec'):
        load_distiller(config, tmp_path / 'part.pth')
    old = {f'projectors.{k}': v for k, v in state.items()}
    torch.save(dict(state_dict=old), tmp_path / 'old.pth')
    with pytest.raises(RuntimeError, match='train again'):
        load_distiller(config, tmp_path / 'old.pth')
    require_term(model, 't2s')
    with pytest.raises(ValueError, match="no 'rot'"):
        require_term(model, 'rot')
