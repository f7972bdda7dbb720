import json

import open_clip
import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from kpu_mm.models import ZeroShotClsHead
from kpu_mm.models.teachers import CLIPTeacher

CLASSES = ['cat', 'dog', 'red car']
TEMPLATES = ['a photo of a {}.', 'my {}.']


def build(folder, **kwargs):
    return ZeroShotClsHead(
        clip=dict(model=f'local-dir:{folder}'),
        classes=CLASSES,
        templates=TEMPLATES,
        **kwargs,
    )


def untouched(folder, images):
    """open_clip alone, as its documentation classifies."""
    model = open_clip.create_model(f'local-dir:{folder}').eval()
    # a weight that asks for gradients selects another attention kernel
    model.requires_grad_(False)
    config = json.loads((folder / 'open_clip_config.json').read_text())
    mean, std = (
        torch.tensor(config['preprocess_cfg'][key]).view(3, 1, 1)
        for key in ('mean', 'std')
    )
    text = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer(f'local-dir:{folder}'), CLASSES,
        TEMPLATES,
    )  # fmt: skip
    image = model.encode_image((images / 255 - mean) / std, normalize=True)
    logits = model.logit_scale.exp() * image @ text
    if model.logit_bias is None:
        return logits, logits.softmax(-1)
    return logits + model.logit_bias, (logits + model.logit_bias).sigmoid()


@torch.no_grad()
@pytest.mark.parametrize('kind, size', [('clip', 64), ('siglip_text', 160)])
def test_teacher_s_own_summary_gives_its_own_result(kind, size, request):
    folder = request.getfixturevalue(f'{kind}_dir')
    images = torch.randint(0, 256, (4, 3, size, size)).float()
    logits, scores = untouched(folder, images)
    head = build(folder)
    summary = CLIPTeacher(f'local-dir:{folder}')(images).summary
    assert torch.equal(head((summary,)), logits)
    assert logits.std() > 1e-3  # not all alike
    samples = head.predict((summary,))
    assert torch.equal(torch.stack([s.pred_score for s in samples]), scores)
    labels = torch.cat([s.pred_label for s in samples])
    assert torch.equal(labels, logits.argmax(-1))


def test_writes_into_the_given_samples(clip_dir):
    from mmpretrain.structures import DataSample

    given = [DataSample().set_gt_label(1), DataSample().set_gt_label(2)]
    out = build(clip_dir).predict((torch.randn(2, 32),), given)
    assert out[0] is given[0] and out[1].gt_label == 2
    assert isinstance(out[0], BaseDataElement)


def test_other_classes(clip_dir):
    head = build(clip_dir)
    x = torch.randn(2, 32)
    before = head((x,))
    head.set_classes(['dog', 'cat'], TEMPLATES)
    assert torch.equal(head((x,)).flip(1), before[:, :2])
    assert head.num_classes == 2
    with pytest.raises(ValueError, match='class list is empty'):
        head.set_classes([])


def test_no_weights_of_its_own(clip_dir):
    owner = nn.Sequential(build(clip_dir)).to(torch.float64)
    assert not list(owner.parameters()) and not owner.state_dict()
    assert owner[0].bank.model.logit_scale.dtype == torch.float64
