"""Exported students behind transformers' Auto classes, and inside its models."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    DetrConfig,
    DetrForObjectDetection,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    pipeline,
)

import kpu_mm  # noqa: F401
from kpu_mm import hf_models
from kpu_mm.export import read_student, write_student
from kpu_mm.hf_config import KPUConfig
from kpu_mm.hf_models import KPUModel, KPUPyramid
from kpu_mm.models.backbones import ViTBackbone, load_exported
from kpu_mm.models.student import Student, load_student
from kpu_mm.weights import hub
from tests.small_models import SIZE, batch_of, build, shrink


@pytest.fixture(scope='module')
def folder(distilled, tmp_path_factory):
    student = read_student(distilled[0], distilled[1])
    return write_student(student, tmp_path_factory.mktemp('out') / 'student')


@pytest.fixture(scope='module')
def vit_folder(dinov2_dir, tmp_path_factory):
    student = Student(ViTBackbone(str(dinov2_dir), out_type='features'), {}, {}, {})
    return write_student(student, tmp_path_factory.mktemp('out') / 'vit')


@pytest.fixture
def images():
    return torch.randn(2, 3, 70, 96)


def assert_equal(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


def image(height=90, width=120):
    return Image.fromarray(np.random.randint(0, 256, (height, width, 3), dtype=np.uint8))


@torch.no_grad()
def test_both_give_the_exported_student_bit_for_bit(folder, images):
    features = load_exported(folder).extract(images)
    model = AutoModel.from_pretrained(folder)
    assert type(model) is KPUModel and not model.training
    out = model(images, output_hidden_states=True)
    assert torch.equal(out.pooler_output, features.summary)
    assert_equal(out.hidden_states, features.maps)
    # CLS first, then the map of stride 16 row by row
    assert torch.equal(out.last_hidden_state[:, 0], features.summary)
    assert torch.equal(out.last_hidden_state[:, 1 + 6 + 2], features.maps[2][:, :, 1, 2])
    assert_equal(model(images, return_dict=False), [out.last_hidden_state, features.summary])

    backbone = AutoBackbone.from_pretrained(str(folder), out_indices=[1, 2, 3])
    assert type(backbone) is KPUPyramid
    assert backbone.channels == [48] * 3 and backbone.out_features == ['stage2', 'stage3', 'stage4']
    assert_equal(backbone(images).feature_maps, features.maps[1:])
    backbone.out_indices = [3]
    assert_equal(backbone(images).feature_maps, features.maps[3:])


@torch.no_grad()
@pytest.mark.parametrize('family', ['dinov2_dir', 'dinov3_dir'])
def test_a_vit_gives_what_the_library_gives(family, request, tmp_path):
    source = request.getfixturevalue(family)
    student = Student(ViTBackbone(str(source)), {}, {}, {})
    model = AutoModel.from_pretrained(write_student(student, tmp_path / 'vit'))
    library = AutoModel.from_pretrained(source).eval()
    images = torch.randn(2, 3, 4 * library.config.patch_size, 5 * library.config.patch_size)
    expected, out = library(images).last_hidden_state, model(images)
    assert torch.equal(out.pooler_output, expected[:, 0])
    # registers are left out
    assert torch.equal(out.last_hidden_state[:, 1:], expected[:, -20:])


def test_the_pyramid_of_a_vit_is_new(vit_folder, images):
    backbone, info = AutoBackbone.from_pretrained(vit_folder, output_loading_info=True)
    assert info['missing_keys']
    assert all(key.startswith('backbone.levels.') for key in info['missing_keys'])
    own = load_exported(vit_folder)
    for (name, a), (_, b) in zip(
        backbone.backbone.levels.named_parameters(), own.levels.named_parameters(), strict=True
    ):
        if a.ndim > 1:
            # the constructor's distribution, not what the memory held
            assert float(a.detach().std()) == pytest.approx(float(b.detach().std()), rel=0.3), name
    maps = backbone(images).feature_maps
    assert [m.shape[-1] for m in maps] == [24, 12, 6, 3]
    sum(m.mean() for m in maps).backward()
    assert backbone.backbone.levels['0'].layers[0].weight.grad is not None


@pytest.mark.parametrize('frozen', ['sentinel', 'all', 'none'])
def test_gradients(frozen, folder, images):
    backbone = AutoBackbone.from_pretrained(folder, frozen=frozen).train()
    assert backbone.backbone.norms[0].training == (frozen != 'all')
    assert not backbone.backbone.sentinel.training
    out = sum(m.square().mean() for m in backbone(images).feature_maps)
    if frozen == 'all':
        assert not out.requires_grad
        return
    out.backward()
    learns = {n for n, p in backbone.named_parameters() if p.grad is not None}
    assert learns == {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert 'backbone.up.weight' in learns
    assert any('.sentinel.' in name for name in learns) == (frozen == 'none')


def test_refuses_another_value_of_frozen(folder):
    with pytest.raises(ValueError, match=r"frozen='adapter': choose from \('sentinel', 'all'"):
        AutoModel.from_pretrained(folder, frozen='adapter')


def test_precision_is_that_of_the_caller(folder, images):
    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(images.bfloat16()).pooler_output.dtype == torch.bfloat16


def test_feature_info(folder, vit_folder):
    info = AutoBackbone.from_pretrained(folder, out_indices=[0, 2]).feature_info
    assert info.channels() == [48, 48] and info.reduction() == [4, 16]
    assert load_exported(folder).feature_info.module_name() == [
        f'stride{s}' for s in (4, 8, 16, 32)
    ]
    assert load_exported(vit_folder, out_type='features').feature_info.reduction() == [14]


@torch.no_grad()
@pytest.mark.parametrize('auto', [AutoModel, AutoBackbone])
def test_saved_again_it_is_the_same_student(auto, folder, distilled, tmp_path, images):
    auto.from_pretrained(folder).save_pretrained(tmp_path / 'again')
    expected, got = load_student(folder), load_student(tmp_path / 'again')
    a, b = (student.backbone.encode(images * 50 + 120) for student in (expected, got))
    assert_equal([b.summary, *b.maps], [a.summary, *a.maps])
    assert set(got.links) == {'teacher', 'other'} and got.teachers == expected.teachers
    for name, link in expected.links.items():
        assert_equal(got.links[name].infer(a, (70, 96)).maps, link.infer(a, (70, 96)).maps)
    one, two = (json.loads((p / 'config.json').read_text()) for p in (folder, tmp_path / 'again'))
    assert one['sentinel'] == two['sentinel'] and one['backbone'] == two['backbone']
    # safetensors writes metadata in any order, so not every file is the same
    for name in ('projectors.safetensors', 'sentinel/config.json'):
        assert one['files'][name] == two['files'][name]


def test_what_save_pretrained_refuses(folder, tmp_path):
    model = AutoModel.from_pretrained(folder)
    with pytest.raises(FileExistsError, match='not an empty folder'):
        model.save_pretrained(folder)
    with pytest.raises(ValueError, match="max_shard_size='5MB': a student is written"):
        model.save_pretrained(tmp_path / 'x', max_shard_size='5MB')
    assert not (tmp_path / 'x').exists()


def test_the_file_of_a_folder_is_no_state_dict(folder):
    """So transformers' Trainer would load it, when it resumes."""
    model = AutoModel.from_pretrained(folder)
    state = load_file(folder / 'model.safetensors')
    with pytest.raises(RuntimeError, match='Trainer cannot resume'):
        model.load_state_dict(state, False)
    missing, unexpected = model.load_state_dict(model.state_dict())
    assert not missing and not unexpected


def test_push_to_hub_uploads_the_folder_and_its_card(folder, monkeypatch):
    class Hub:
        def __init__(self, token):
            assert token == 'mine'

        def create_repo(self, repo_id, private, exist_ok):
            assert private is True and exist_ok
            return SimpleNamespace(repo_id=f'me/{repo_id}')

        def upload_folder(self, *, repo_id, folder_path, revision, **_):
            assert (repo_id, revision) == ('me/student', 'v2')
            card = (folder_path / 'README.md').read_text()
            return card, {str(p.relative_to(folder_path)) for p in folder_path.rglob('*.*')}

    monkeypatch.setattr(hf_models, 'HfApi', Hub)
    model = AutoModel.from_pretrained(folder)
    card, files = model.push_to_hub('student', private=True, token='mine', revision='v2')
    assert card.startswith('---\nlibrary_name: transformers\n')
    assert 'AutoBackbone.from_pretrained' in card
    assert files == {str(p.relative_to(folder)) for p in folder.rglob('*.*')}


def test_a_name_is_fetched_from_the_hub(folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match="Cannot download 'me student'"):
        KPUModel.from_pretrained('me student', local_files_only=True)

    def fetch(name, allow_patterns, revision):
        assert (name, revision) == ('me/student', 'v2')
        assert all(p.endswith(('.json', '.safetensors')) for p in allow_patterns)
        return str(folder)

    monkeypatch.setattr(hub, 'snapshot_download', fetch)
    model = KPUModel.from_pretrained('me/student', revision='v2')
    assert model.name_or_path == 'me/student'


def test_an_export_of_before_loads_by_its_class(folder, tmp_path, images):
    old = shutil.copytree(folder, tmp_path / 'old')
    config = json.loads((old / 'config.json').read_text())
    for key in ('model_type', 'architectures', 'sentinel_config'):
        del config[key]
    (old / 'config.json').write_text(json.dumps(config))
    with torch.no_grad():
        expected = load_exported(old).extract(images).summary
        assert torch.equal(KPUModel.from_pretrained(old)(images).pooler_output, expected)


def test_foreign_configurations_are_checked(folder, tmp_path):
    config = AutoConfig.from_pretrained(folder)
    config.backbone['init_cfg'] = dict(type='Pretrained', checkpoint='/etc/passwd')
    with pytest.raises(ValueError, match='init_cfg is no argument of a student'):
        AutoBackbone.from_config(config)
    config = AutoConfig.from_pretrained(folder)
    config.sentinel_config['attn_implementation'] = 'somebody/kernel'
    with pytest.raises(RuntimeError, match='attn_implementation, which may run'):
        AutoBackbone.from_config(config)
    other = shutil.copytree(folder, tmp_path / 'other')
    described = json.loads((other / 'config.json').read_text())
    described['sentinel_config']['num_attention_heads'] = 2
    (other / 'config.json').write_text(json.dumps(described))
    with pytest.raises(RuntimeError, match='sentinel_config must be what is in'):
        AutoModel.from_pretrained(other)


def test_image_processor_and_pipeline(folder):
    picture = image()
    processor = AutoImageProcessor.from_pretrained(folder)
    whole = processor(
        picture, do_resize=False, do_center_crop=False, return_tensors='pt'
    ).pixel_values
    backbone = load_exported(folder)
    raw = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    torch.testing.assert_close(whole, backbone.normalise(raw))
    extract = pipeline('image-feature-extraction', model=str(folder))
    cropped = processor(picture, return_tensors='pt').pixel_values
    assert cropped.shape == (1, 3, 224, 224)
    with torch.no_grad():
        summary = backbone.extract(cropped).summary
    assert torch.equal(extract(picture, pool=True, return_tensors=True), summary)
    assert np.shape(extract(picture)) == (1, 1 + 14 * 14, 48)


def upernet(config):
    return UperNetForSemanticSegmentation(
        UperNetConfig(
            backbone_config=config,
            hidden_size=16,
            pool_scales=[1, 2],
            auxiliary_in_channels=48,
            auxiliary_channels=8,
            num_labels=150,
        )
    )


def test_upernet_of_transformers_and_of_mmsegmentation(folder, tmp_path):
    """Each trains a step; before that their backbones give the same."""
    cfg = get_config('mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py')
    shrink(
        cfg,
        folder / 'sentinel',
        num_interactions=2,
        init_cfg=dict(type='Pretrained', checkpoint=str(folder / 'model.safetensors')),
    )
    theirs = get_model(cfg)
    batch = batch_of('mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        inputs = theirs[0].data_preprocessor(batch, training=False)['inputs']
    ours = upernet(AutoConfig.from_pretrained(folder))
    ours.backbone = AutoBackbone.from_pretrained(folder)
    for name, p in ours.backbone.named_parameters():
        if name.endswith('injector.gamma'):  # as build() does
            p.data.fill_(0.1)
    with torch.no_grad():
        expected = theirs[0].backbone.eval()(inputs)
        assert_equal(ours.backbone(inputs).feature_maps, expected)

    optimizer = torch.optim.AdamW([p for p in ours.parameters() if p.requires_grad], lr=1e-3)
    before = {n: p.detach().clone() for n, p in ours.named_parameters()}
    labels = torch.stack([s.gt_sem_seg.data[0] for s in batch['data_samples']])
    loss = ours.train()(inputs, labels=labels).loss
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    moved = {n for n, p in ours.named_parameters() if not torch.equal(p, before[n])}
    assert 'backbone.backbone.up.weight' in moved
    assert not any('.sentinel.' in name for name in moved)
    with DefaultScope.overwrite_default_scope('mmseg'):
        losses = theirs[0].train().train_step(batch, theirs[1])
    assert torch.isfinite(losses['loss'])

    ours.eval().save_pretrained(tmp_path / 'upernet')
    again = UperNetForSemanticSegmentation.from_pretrained(tmp_path / 'upernet')
    with torch.no_grad():
        assert torch.equal(again(inputs).logits, ours(inputs).logits)
    assert not any(p.requires_grad for p in again.backbone.backbone.sentinel.parameters())


def get_model(cfg):
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.update(channels=8, norm_cfg=dict(type='BN'))
    return build(cfg)


def test_a_new_backbone_in_a_model_of_files_is_initialised(folder, tmp_path):
    """As when somebody's heads are loaded over another backbone."""
    upernet(AutoConfig.from_pretrained(folder)).save_pretrained(tmp_path / 'heads')
    config = UperNetConfig.from_pretrained(tmp_path / 'heads')
    state = {
        n: p
        for n, p in upernet(config.backbone_config).state_dict().items()
        if not n.startswith('backbone.')
    }
    model = UperNetForSemanticSegmentation.from_pretrained(None, config=config, state_dict=state)
    for name, p in model.backbone.named_parameters():
        assert not p.is_meta and torch.isfinite(p).all() and p.abs().max() < 10, name
        if name.endswith('injector.gamma'):
            assert not p.any()


def test_mask2former_trains_a_step(folder):
    model = Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            backbone_config=AutoConfig.from_pretrained(folder),
            hidden_dim=32,
            feature_size=32,
            mask_feature_size=32,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            dim_feedforward=16,
            encoder_feedforward_dim=16,
            num_queries=5,
            num_labels=3,
            train_num_points=32,
        )
    )
    masks = [torch.randint(0, 2, (2, *SIZE)).float()] * 2
    classes = [torch.tensor([0, 1])] * 2
    out = model.train()(torch.randn(2, 3, *SIZE), mask_labels=masks, class_labels=classes)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert model.get_parameter('model.pixel_level_module.encoder.backbone.up.weight').grad.any()


@pytest.mark.parametrize('trained', [False, True])
def test_detr_trains_a_step(trained, folder, tmp_path):
    options = dict(out_features=['stage4'])
    if trained:
        backbone = dict(backbone=str(folder), backbone_kwargs=options)
    else:
        config = KPUConfig.from_pretrained(folder, **options)
        backbone = dict(backbone=None, backbone_config=config)
    model = DetrForObjectDetection(
        DetrConfig(
            use_timm_backbone=False,
            use_pretrained_backbone=trained,
            **backbone,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            num_queries=5,
            num_labels=3,
        )
    )
    boxes = dict(class_labels=torch.tensor([1]), boxes=torch.tensor([[0.5, 0.5, 0.2, 0.3]]))
    out = model.train()(torch.randn(1, 3, *SIZE), labels=[boxes])
    out.loss.backward()
    assert out.logits.shape == (1, 5, 4)
    part = 'model.backbone.conv_encoder.model.backbone.level_embed'
    assert model.get_parameter(part).grad.any()
    expected = load_exported(folder).level_embed
    assert torch.equal(model.get_parameter(part), expected) == trained

    model.eval().save_pretrained(tmp_path)
    again = DetrForObjectDetection.from_pretrained(tmp_path)
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        assert torch.equal(again(images).logits, model(images).logits)
