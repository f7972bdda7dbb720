"""Zero-shot configs, through tools/test.py on small data and models."""

import importlib.util
import pickle
import sys
from pathlib import Path

import mmcv
import open_clip
import pytest
import torch
from mmengine.config import Config
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

from kpu_mm.models.teachers import CLIPTeacher, GroundingDINOTeacher
from tests.fixtures_labeled import CLASSES
from tests.runs import ROOT, metrics_of

CONFIGS = ROOT / 'configs' / 'zero_shot'
TEMPLATES = ['a photo of a {}.']
METRICS = dict(imagenet='accuracy/top1', coco='coco/bbox_mAP', ade20k='mIoU')
ROWS = sorted(
    str(path.relative_to(CONFIGS).with_suffix(''))
    for path in CONFIGS.glob('*/*.py')
    if 'mmdet' not in path.stem
)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The tool in this process; the predictions of a config."""
    spec = importlib.util.spec_from_file_location('tools_test', ROOT / 'tools' / 'test.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def call(cfg):
        cfg.dump(tmp_path / 'config.py')
        found = tmp_path / 'found.pkl'
        command = ['test.py', tmp_path / 'config.py', 'none']
        command += ['--work-dir', tmp_path, '--out', found]
        monkeypatch.setattr(sys, 'argv', list(map(str, command)))
        tool.main()
        with found.open('rb') as file:
            return pickle.load(file)

    return call


@pytest.fixture
def small(labeled, zero_shot_run, clip_dir, grounding_dino_dir, florence_dir):
    """A config with tiny models and data in its places."""
    data = Config.fromfile(labeled / 'tasks.py')

    def shrink(name):
        task = name.split('/')[0]
        cfg = Config.fromfile(CONFIGS / f'{name}.py')
        loader = data[f'{task}_val_dataloader']
        dataset = cfg.test_dataloader.dataset
        cfg.test_dataloader = dict(loader, dataset=dict(loader.dataset, pipeline=dataset.pipeline))
        for step in dataset.pipeline:
            if 'scale' in step:
                step.scale = (96, 128)
                if task == 'imagenet':
                    step.scale = 64 if step.type == 'ResizeEdge' else (64, 64)
            if 'crop_size' in step:
                step.crop_size = 64
            if 'reduce_zero_label' in step:
                step.reduce_zero_label = False
        cfg.test_evaluator = data[f'{task}_val_evaluator']
        models = [cfg.model.get(key) or {} for key in ('backbone', 'encoder')]
        for model in models:
            if 'source' in model:
                model.source = str(zero_shot_run / 'iter_1.pth')
            if 'teacher' in model and isinstance(model.teacher, dict):
                model.teacher.pop('pretrained')
                model.teacher.model = f'local-dir:{clip_dir}'
        for head in ('head', 'decode_head'):
            if head in cfg.model:
                cfg.model[head].clip = dict(model=f'local-dir:{clip_dir}')
                cfg.model[head].update(classes=CLASSES, templates=TEMPLATES, cache_dir=None)
        if task == 'coco':
            assert dataset.return_classes
            cfg.test_dataloader.dataset.return_classes = True
            if 'teacher' in cfg.model:
                cfg.model.teacher.source = str(grounding_dino_dir)
            else:
                cfg.model.update(source=str(florence_dir), max_new_tokens=4)
        if task == 'ade20k':
            cfg.model.test_cfg.update(crop_size=(48, 48), stride=(32, 32))
        return cfg

    return shrink


@pytest.mark.slow
@pytest.mark.parametrize('name', ROWS)
def test_row(name, small, run, tmp_path):
    task = name.split('/')[0]
    found = run(small(name))
    assert len(found) == 3
    # at random weights Florence-2 writes no boxes, and there is no metric
    assert 'florence' in name or METRICS[task] in metrics_of(tmp_path)


def images_of(found, side, **kwargs):
    """RGB of the images in the order of predictions, (1, 3, S, S) each."""
    for sample in found:
        image = mmcv.imread(sample['img_path'], channel_order='rgb')
        image = mmcv.imresize(image, (side, side), **kwargs)
        yield torch.from_numpy(image).permute(2, 0, 1)[None]


@torch.no_grad()
@pytest.mark.slow
def test_clip_row_is_open_clip(small, run, clip_dir):
    """Bit for bit, from the file to the score."""
    found = run(small('imagenet/clip-vitb'))
    model = open_clip.create_model(f'local-dir:{clip_dir}').eval()
    model.requires_grad_(False)
    text = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer('ViT-B-16'), CLASSES, TEMPLATES
    )
    prepare = CLIPTeacher(f'local-dir:{clip_dir}').prepare
    x = prepare(torch.cat(list(images_of(found, 64))))[0]
    features = model.encode_image(x, normalize=True)
    expected = (model.logit_scale.exp() * features @ text).softmax(-1)
    for score, sample in zip(expected, found, strict=True):
        assert torch.equal(sample['pred_score'], score)


@torch.no_grad()
@pytest.mark.slow
def test_clip_row_of_segmentation_is_open_clip(small, run, clip_dir):
    cfg = small('ade20k/clip-vitb')
    cfg.model.test_cfg = dict(mode='whole')
    found = run(cfg)
    model = open_clip.create_model(f'local-dir:{clip_dir}').eval()
    model.requires_grad_(False)
    model.visual.output_tokens = True
    text = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer('ViT-B-16'), CLASSES, TEMPLATES
    )
    prepare = CLIPTeacher(f'local-dir:{clip_dir}').prepare
    for image, sample in zip(images_of(found, 96), found, strict=True):
        _, tokens = model.visual(prepare(image)[0])
        tokens = torch.nn.functional.normalize(tokens @ model.visual.proj, dim=-1)
        logits = (model.logit_scale.exp() * tokens @ text).unflatten(1, (4, 4))
        logits = torch.nn.functional.interpolate(
            logits.permute(0, 3, 1, 2), (96, 96), mode='bilinear'
        )
        logits = torch.nn.functional.interpolate(logits, (64, 64), mode='bilinear')
        # not bit for bit: on some processors matrix products of another
        # batch size round otherwise
        torch.testing.assert_close(sample['seg_logits']['data'], logits[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.slow
def test_grounding_dino_row_is_transformers(small, run, grounding_dino_dir):
    cfg = small('coco/grounding-dino-swinb')
    cfg.test_dataloader.batch_size = 1
    found = run(cfg)
    model = GroundingDinoForObjectDetection.from_pretrained(grounding_dino_dir)
    processor = GroundingDinoProcessor.from_pretrained(grounding_dino_dir)
    batch = processor(text=[list(CLASSES)], return_tensors='pt')
    prepare = GroundingDINOTeacher(str(grounding_dino_dir)).prepare
    images = images_of(found, 96, backend='pillow')
    for image, sample in zip(images, found, strict=True):
        out = model.eval()(pixel_values=prepare(image)[0], **batch)
        # [CLS] square . bar . stripe . [SEP], each one token here
        scores = out.logits.sigmoid()[0][:, [1, 3, 5]]
        best, index = scores.flatten().sort(descending=True)
        instances = sample['pred_instances']
        assert torch.equal(instances['scores'], best)
        center, size = out.pred_boxes[0].split(2, -1)
        boxes = torch.cat([center - size / 2, center + size / 2], -1)
        expected = boxes[index // 3].clamp(0, 1) * 64
        assert (instances['bboxes'] - expected).abs().max() < 1e-4


def test_weights_must_come_from_somewhere(labeled, run, capsys, tmp_path):
    cfg = Config.fromfile(labeled / 'imagenet.py')
    with pytest.raises(SystemExit):
        run(cfg)
    assert 'weights that only a checkpoint' in capsys.readouterr().err


def test_rows_differ_by_their_models_alone():
    for path in map(Path, ROWS):
        row = Config.fromfile(CONFIGS / f'{path}.py').to_dict()
        kpu = Config.fromfile(CONFIGS / path.parent / 'kpu-vitb.py').to_dict()
        del row['model'], kpu['model']
        if path.name.startswith(('florence', 'siglip')):
            # they resize images in other ways
            for cfg in (row, kpu):
                del cfg['test_dataloader']['dataset']['pipeline']
        assert row == kpu, path
