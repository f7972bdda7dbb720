import copy
import shutil

import pytest
import torch

from kpu_mm.export import read_student, write_student
from kpu_mm.models.student import load_student, open_student, read_teachers


@pytest.fixture
def config(distilled):
    return copy.deepcopy(distilled[0])


def test_detector_s_backbone(distilled, config, tmp_path):
    _, _, model = distilled
    state = {f'backbone.{name}': value for name, value in model.student.state_dict().items()}
    state['bbox_head.weight'] = torch.zeros(1)
    torch.save(dict(state_dict=state), tmp_path / 'detector.pth')
    detector = dict(type='mmdet.DINO', backbone=config['student'])
    student = read_student(detector, tmp_path / 'detector.pth')
    assert not student.links and not student.teachers
    for name, value in model.student.state_dict().items():
        assert torch.equal(student.backbone.state_dict()[name], value)


def test_trained_sentinel_wins_over_its_source(distilled, config, tmp_path):
    state = dict(distilled[2].state_dict())
    for name, value in distilled[2].student.sentinel.state_dict().items():
        state[f'student.sentinel.{name}'] = value + 0.5
    torch.save(dict(state_dict=state), tmp_path / 'trained.pth')
    config['student']['frozen'] = 'none'
    student = read_student(config, tmp_path / 'trained.pth')
    for name, value in student.backbone.sentinel.state_dict().items():
        assert torch.equal(value, state[f'student.sentinel.{name}'])


def test_truncated_checkpoint(distilled, tmp_path):
    broken = tmp_path / 'broken.pth'
    broken.write_bytes(distilled[1].read_bytes()[:-2000])
    with pytest.raises(RuntimeError, match=r'broken\.pth.*truncated'):
        read_student(distilled[0], broken)


def test_other_sizes(distilled, config):
    config['student']['inplanes'] = 16
    with pytest.raises(RuntimeError, match=r'student\.prior.* is \('):
        read_student(config, distilled[1])


def test_missing_keys(distilled, config):
    config['student']['num_interactions'] = 4
    with pytest.raises(RuntimeError, match=r'keys are missing'):
        read_student(config, distilled[1])


def test_another_sentinel(distilled, config, save_model):
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(1)
    other = Dinov2Config(
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
        layer_norm_eps=1e-5,
    )

    def build():
        model = Dinov2Model(other)
        model.layernorm.bias.data += 1
        return model

    config['student']['sentinel'] = str(save_model('other', build))
    with pytest.raises(RuntimeError, match='trained with sentinel'):
        read_student(config, distilled[1])


def test_checkpoint_of_something_else(distilled, config, tmp_path):
    torch.save(dict(weight=torch.zeros(1)), tmp_path / 'head.pth')
    with pytest.raises(RuntimeError, match=r"no weights named 'student\."):
        read_student(config, tmp_path / 'head.pth')


def test_model_without_kpu_backbone(distilled):
    with pytest.raises(ValueError, match=r'no kpu_mm\.KPUBackbone'):
        read_student(dict(type='mmdet.DINO', backbone={}), distilled[1])


def test_levels_come_from_the_checkpoint(distilled, config):
    _, checkpoint, model = distilled
    for teacher in config['teachers'].values():
        teacher['source'] = '/not/on/this/machine'
    links = read_student(config, checkpoint).links
    for name, link in links.items():
        assert link.levels == model.links[name].levels
    assert links['teacher'].levels.strides == (14,)
    assert links['other'].levels.strides == (16,)


def test_checkpoint_of_an_earlier_layout(distilled, config, tmp_path):
    state = {
        f'projectors.s2t.{name}': value
        for name, value in distilled[2].links['other'].s2t.state_dict().items()
    }
    old = {**distilled[2].student.state_dict(prefix='student.'), **state}
    torch.save(dict(state_dict=old), tmp_path / 'old.pth')
    with pytest.raises(RuntimeError, match=r'old\.pth.*train again'):
        read_student(config, tmp_path / 'old.pth')


def test_exported_folder_is_the_same_student(distilled, config, tmp_path):
    student = read_student(config, distilled[1])
    folder = write_student(student, tmp_path / 'out')
    loaded = load_student(folder)
    for name, link in student.links.items():
        assert loaded.links[name].levels == link.levels
    assert loaded.arguments == student.arguments
    assert loaded.teachers == student.teachers
    for ours, theirs in (
        (loaded.backbone, student.backbone),
        (loaded.links['other'].s2t, student.links['other'].s2t),
    ):
        for name, value in theirs.state_dict().items():
            if not name.endswith('_extra_state'):
                assert torch.equal(ours.state_dict()[name], value)


def test_teachers_without_weights(zero_shot_run, tmp_path):
    """The same from a run and from a folder, whose weights are not read."""
    run = zero_shot_run / 'iter_1.pth'
    student = open_student(run)
    folder = write_student(student, tmp_path / 'out')
    for weights in folder.rglob('*.safetensors'):
        weights.unlink()
    assert read_teachers(run) == read_teachers(folder) == student.teachers
    assert list(student.teachers) == ['clip', 'grounding_dino']
    with pytest.raises(FileNotFoundError, match=r'no config\.json'):
        read_teachers(tmp_path)
    with pytest.raises(FileNotFoundError, match='does not exist: pass a'):
        read_teachers(tmp_path / 'nowhere.pth')


@pytest.mark.parametrize(
    'text',
    [
        'model = dict(**{1: 2})',
        'model = {**{1: 2}}',
        'model = open("x")',
        'model = dict(a=[print()])',
        'model = 3',
        'other = dict()',
        'model = (',
    ],
)
def test_config_beside_a_checkpoint_holds_values(text, tmp_path):
    (tmp_path / 'iter_1.pth').touch()
    (tmp_path / 'run.py').write_text(text)
    with pytest.raises(FileNotFoundError, match=r'run\.py.*pass the one of its run as config'):
        read_teachers(tmp_path / 'iter_1.pth')


def test_only_a_file_with_a_model_is_a_config(zero_shot_run, tmp_path):
    shutil.copytree(zero_shot_run, tmp_path / 'run')
    checkpoint = tmp_path / 'run' / 'iter_1.pth'
    teachers = read_teachers(checkpoint)
    (tmp_path / 'run' / 'script.py').write_text('import sys\nprint(1)\n')
    (tmp_path / 'run' / 'old.py').write_text('print 1\n')
    (tmp_path / 'run' / 'latin.py').write_bytes(b'a = "\xe9"\n')
    assert read_teachers(checkpoint) == teachers
    (tmp_path / 'run' / 'second.py').write_text('model = dict()')
    with pytest.raises(FileNotFoundError, match=r'There are 2 configs beside .*second\.py'):
        read_teachers(checkpoint)
