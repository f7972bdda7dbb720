"""Shares of agreement, the student's way into the classifier, the command."""

import json
import sys

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from PIL import Image
from safetensors.torch import save_file

from kpu_mm.registry import MODELS
from projects.real_model import agreement
from projects.real_model.lite0 import PACKAGE
from projects.real_model.photographs import Photographs

IMAGES = torch.randint(0, 256, (6, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """The project's config with a tiny teacher whose weights are random."""
    path = tmp_path_factory.mktemp('teacher') / 'model.safetensors'
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=1000)
    save_file(model.state_dict(), path)
    config = Config.fromfile(agreement.CONFIG)
    config.model.teachers.lite0.update(model='test_resnet', checkpoint=str(path))
    return config


@pytest.fixture(scope='module')
def checkpoint(config, tmp_path_factory):
    """Of another seed, with statistics that are not those of an affine map's start."""
    torch.manual_seed(5)
    distiller = MODELS.build(config.model)
    state = distiller.state_dict()
    for name, value in state.items():
        if '.normalizer.' in name and value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5)
    state['links.lite0.normalizer.fitted'].fill_(True)
    path = tmp_path_factory.mktemp('run') / 'iter_1.pth'
    torch.save(dict(state_dict=state), path)
    return path


@torch.no_grad()
def test_the_way_into_the_classifier(config, checkpoint):
    distiller = agreement.load_distiller(config.model, checkpoint, term='s2t')
    models = agreement.classifiers(distiller)
    teacher = distiller.teachers['lite0']
    logits = teacher.model(teacher.prepare(IMAGES)[0])
    assert torch.equal(models['teacher'](IMAGES), logits.argmax(1))
    # by hand: the summary's MLP, then back to the teacher's scale
    link = distiller.links['lite0']
    summary = link.s2t.summary(distiller.student.encode(IMAGES).summary)
    statistics = link.normalizer.summary
    summary = summary @ statistics.inverse.T + statistics.mean
    last = teacher.model.fc
    expected = (summary @ last.weight.T + last.bias).argmax(1)
    assert torch.equal(models['student'](IMAGES), expected)


def test_untrained_has_the_weights_of_the_seed(config, checkpoint):
    torch.manual_seed(config.randomness.seed)
    expected = MODELS.build(config.model).state_dict()
    trained = torch.load(checkpoint)['state_dict']
    found = agreement.untrained(config, checkpoint).state_dict()
    for name, value in found.items():
        wanted = trained[name] if '.normalizer.' in name else expected[name]
        assert torch.equal(value, wanted), name


def test_shares():
    named = dict(
        teacher=torch.tensor([3, 3, 3, 7, 9]),
        student=torch.tensor([3, 3, 7, 7, 9]),
        untrained=torch.tensor([9, 9, 9, 9, 9]),
    )
    expected = {'photographs': 5, 'most frequent': 0.6, 'student': 0.8, 'untrained': 0.2}
    assert agreement.shares(named) == pytest.approx(expected)
    named['label'] = torch.tensor([3, 3, 3, 3, 3])
    tops = {'top-1 of teacher': 0.6, 'top-1 of student': 0.4, 'top-1 of untrained': 0.0}
    assert agreement.shares(named) == pytest.approx(expected | tops)


def test_names_of_all_batches():
    batches = [Photographs(IMAGES[:4], torch.arange(4)), Photographs(IMAGES[4:], torch.arange(2))]
    first_pixel = {'pixel': lambda images: images[:, 0, 0, 0].long()}
    named = agreement.name_classes(first_pixel, batches)
    assert named['pixel'].tolist() == IMAGES[:, 0, 0, 0].tolist()
    assert named['label'].tolist() == [0, 1, 2, 3, 0, 1]


def test_three_standard_errors():
    result = {'student': 0.2, 'untrained': 0.01, 'most frequent': 0.08, 'photographs': 95}
    # the standard error is 0.041: 0.2 - 3 * 0.041 < 0.08
    assert not agreement.is_clear(result)
    assert agreement.is_clear({**result, 'photographs': 110})
    assert not agreement.is_clear({**result, 'photographs': 110, 'untrained': 0.1})


@pytest.mark.real
def test_the_command(tmp_path, monkeypatch, capsys):
    """Two steps teach nothing, and the command says so."""
    pytest.importorskip(PACKAGE, reason='make real installs it')
    generator = np.random.default_rng(0)
    for folder, count in (('photos', 30), ('labelled/n01440764', 2)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (64, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f'{i}.png')
    given = ['--photos', tmp_path / 'photos', '--labelled', tmp_path / 'labelled']
    options = [
        '--cfg-options',
        'train_cfg.max_iters=2',
        'default_hooks.normalizer_fit.num_images=32',
    ]
    command = ['agreement', *given, '--work-dir', tmp_path / 'work', *options]
    monkeypatch.setattr(sys, 'argv', list(map(str, command)))
    monkeypatch.setenv('KPU_MM_REAL', '')  # the command sets it
    with pytest.raises(SystemExit, match='does not agree clearly more often'):
        agreement.main()
    results = json.loads((tmp_path / 'work' / 'results.json').read_text())
    assert list(results) == ['test', 'labelled', 'labelled, 224 px']
    assert results['test']['photographs'] == 3
    assert results['labelled']['photographs'] == 2
    assert list(results['labelled, 224 px']) == ['photographs', 'most frequent', 'top-1 of teacher']
    assert "{'train': 24, 'validation': 3, 'test': 3}" in capsys.readouterr().out
