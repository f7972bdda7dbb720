import copy

import pytest
import torch
from mmengine.config import Config

from kpu_mm.datasets.feature_cache import StoredFeatures
from kpu_mm.models.teachers import CachedTeacher, TeacherBank
from kpu_mm.registry import MODELS
from kpu_mm.structures import Features
from tests.fixtures_cache import loss_rows, write_cached

# rounding to 11 bits, of which a mean over cells keeps less
FLOAT16, BFLOAT16 = 5e-4, 4e-3


def assert_close(got, expected, tolerance):
    assert len(got) == len(expected) > 0
    for a, b in zip(got, expected, strict=True):
        assert a == pytest.approx(b, rel=tolerance, abs=tolerance)


@pytest.fixture(scope='module')
def live_rows(live_config):
    return loss_rows(live_config)


def test_losses_are_those_of_the_teachers(live_rows, cached_config):
    """8 iterations: both views, several epochs, padding, a corrupt image."""
    got = loss_rows(cached_config)
    assert_close(got, live_rows, FLOAT16)
    assert got != live_rows  # the stored features were taken
    assert {'s2t/clip', 'rec/gdino', 'std/gdino'} <= got[0].keys()


def test_losses_in_bfloat16(live_rows, live_config, tmp_path, run_cache_tool):
    caches = tmp_path / 'bf16'
    assert run_cache_tool(live_config, caches, '--dtype', 'bfloat16') == 0
    cached = write_cached(live_config, caches, tmp_path)
    assert_close(loss_rows(cached), live_rows, BFLOAT16)


def test_another_seed_shows_the_same_views(live_config, cached_config):
    expected = loss_rows(live_config, 3, seed=11)
    assert_close(loss_rows(cached_config, 3, seed=11), expected, FLOAT16)


def test_workers_change_nothing(cached_config):
    def two_workers(cfg):
        for stream in cfg.train_dataloader.values():
            stream.num_workers = 2

    expected = loss_rows(cached_config, 5)
    assert loss_rows(cached_config, 5, change=two_workers) == expected


def test_normalisers_are_fitted_to_stored_features(live_config, cached_config):
    def normalise(cfg):
        cfg.model.normalizer = dict(type='kpu_mm.StandardNormalizer')

    expected = loss_rows(live_config, 3, change=normalise)
    assert_close(loss_rows(cached_config, 3, change=normalise), expected, 2e-3)
    assert expected[0]['std/clip'] == pytest.approx(1, rel=0.3)


def test_padding_would_change_features(live_config):
    """Why the cache stands for UnpaddedTeacher, not for the bare one."""

    def padded(cfg):
        teachers = cfg.model.teachers
        teachers.gdino = teachers.gdino.teacher

    plain = loss_rows(live_config, 2, change=padded)
    unpadded = loss_rows(live_config, 2)
    assert plain[0]['s2t/clip'] == unpadded[0]['s2t/clip']
    assert any(
        abs(a['s2t/gdino'] - b['s2t/gdino']) > 1e-5
        for a, b in zip(plain, unpadded, strict=True)
    )


def test_needs_no_model(feature_caches, clip_dir):
    teacher = CachedTeacher(str(feature_caches / 'clip'))
    assert not list(teacher.parameters())
    own = MODELS.build(
        dict(type='kpu_mm.CLIPTeacher', model=f'local-dir:{clip_dir}')
    )
    for key in ('summary_channels', 'channels', 'strides', 'resolution'):
        assert getattr(teacher, key) == getattr(own, key)
    with pytest.raises(RuntimeError, match='do not come with these images'):
        teacher(torch.zeros(1, 3, 64, 64))


@pytest.fixture
def teacher_config(live_config):
    return copy.deepcopy(Config.fromfile(live_config).model.teachers.clip)


def build(caches, config, **kwargs):
    return CachedTeacher(str(caches / 'clip'), config, **kwargs)


def test_the_place_of_weights_does_not_matter(
    feature_caches, teacher_config, clip_dir, tmp_path
):
    (tmp_path / 'moved').symlink_to(clip_dir)
    teacher_config.model = f'local-dir:{tmp_path / "moved"}'
    build(feature_caches, teacher_config)


def test_other_weights_are_refused(feature_caches, teacher_config, save_clip):
    from tests.fixtures_teachers import CLIP_CONFIG, CLIP_MEAN, CLIP_STD

    vision = dict(CLIP_CONFIG['vision_cfg'])
    config = {**CLIP_CONFIG, 'vision_cfg': vision}
    other = save_clip('other', config, CLIP_MEAN, CLIP_STD, 'shortest')
    from safetensors.torch import load_file, save_file

    path = other / 'open_clip_model.safetensors'
    weights = load_file(path)
    weights['visual.proj'][0, 0] += 1e-3
    save_file(weights, path)
    teacher_config.model = f'local-dir:{other}'
    with pytest.raises(ValueError, match=r'something else: teacher\.weights'):
        build(feature_caches, teacher_config)
    # by config alone there is only the other place to see
    with pytest.raises(ValueError, match=r'teacher\.config\.model is'):
        build(feature_caches, teacher_config, check_weights=False)


def test_other_options_are_refused(feature_caches, teacher_config):
    teacher_config.resolution = (96, 96)
    with pytest.raises(
        ValueError, match=r'teacher\.config\.resolution is None in the cache'
    ):
        build(feature_caches, teacher_config, check_weights=False)


def test_another_teacher_is_refused(feature_caches, dinov2_dir):
    dino = dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir))
    with pytest.raises(ValueError, match='made from something else'):
        build(feature_caches, dino)


def test_features_of_another_cache_are_refused(feature_caches):
    teacher = CachedTeacher(str(feature_caches / 'clip'))
    features = Features(torch.zeros(1, 32), (torch.zeros(1, 64, 4, 4),))
    with pytest.raises(ValueError, match='another cache'):
        teacher.recall(StoredFeatures('other', features))


def test_maps_of_one_size_have_no_place_on_padded_images(feature_caches):
    teacher = CachedTeacher(str(feature_caches / 'clip'))
    masks = (torch.ones(1, 1, 4, 4, dtype=torch.bool),)
    features = Features(torch.zeros(1, 32), (torch.zeros(1, 64, 4, 4),), masks)
    with pytest.raises(ValueError, match='stretches to'):
        teacher.recall(StoredFeatures(teacher.id, features))


def test_live_teachers_refuse_stored_features(live_config, feature_caches):
    def no_cached_teacher(cfg):
        folder = str(feature_caches / 'clip')
        cfg.train_dataloader.clip.dataset.features = dict(clip=folder)

    with pytest.raises(ValueError, match='which computes its own'):
        loss_rows(live_config, 1, change=no_cached_teacher)


def test_streams_without_features_are_refused(cached_config):
    def forget(cfg):
        del cfg.train_dataloader.clip.dataset['features']

    with pytest.raises(RuntimeError, match='name the cache in `features`'):
        loss_rows(cached_config, 1, change=forget)


def test_no_cache_is_refused(tmp_path):
    with pytest.raises(ValueError, match='There is no feature cache'):
        CachedTeacher(str(tmp_path))


def test_is_a_teacher_for_the_bank(feature_caches):
    config = dict(type='kpu_mm.CachedTeacher', cache=f'{feature_caches}/clip')
    bank = TeacherBank(dict(clip=config)).apply(lambda t: t.double())
    assert bank['clip'].mean.dtype == torch.float64
