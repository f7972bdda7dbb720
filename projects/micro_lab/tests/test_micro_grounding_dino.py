from __future__ import annotations

import pytest
import torch
from transformers import AutoProcessor, ResNetBackbone

from kpu_mm.models.teachers import GroundingDINOTeacher
from projects.micro_lab.micro_grounding_dino import (
    BACKBONE,
    DetectorNet,
    Prompt,
    assign_cells,
    build_detector,
    detect,
    detection_tokenizer,
    export_grounding_dino,
)


@pytest.fixture(scope='module')
def backbone():
    torch.manual_seed(0)
    return ResNetBackbone(BACKBONE)


@pytest.fixture(scope='module')
def net(backbone):
    return DetectorNet(build_detector(backbone))


def test_prompt_is_what_the_tokenizer_makes(tmp_path):
    order = torch.randperm(10)
    tokenizer = detection_tokenizer(tmp_path)
    words = [tokenizer.convert_ids_to_tokens(200 + int(d)) for d in order]
    prompt = Prompt(order)
    assert tokenizer(' '.join(f'{w}.' for w in words)).input_ids == (prompt.ids.tolist())
    for digit in range(10):
        assert prompt.ids[prompt.column[digit]] == 200 + digit
        assert order[prompt.place[digit]] == digit


def test_starts_from_the_backbone_and_low_probabilities(net, backbone, scenes):
    own = net.detector.model.backbone.conv_encoder.model
    key = 'encoder.stages.2.layers.0.layer.0.convolution.weight'
    assert torch.equal(own.state_dict()[key], backbone.state_dict()[key])
    assert all(p.requires_grad for p in net.parameters())
    with torch.no_grad():
        out = detect(net.detector, scenes.images[:4], Prompt(torch.arange(10)))
    # Digit words and full stops take turns after the start token.
    found = out.logits[..., 1:20:2].sigmoid()
    assert found.shape == (4, 20, 10)
    assert 0.001 < found.mean() < 0.1


def test_the_heads_that_propose_learn(net, scenes):
    """The library's own loss leaves them as they are."""
    few = scenes.take(slice(4))
    losses = net.train()(few)
    heads = net.detector.model.encoder_output_bbox_embed
    weight = heads.layers[-1].weight
    proposals = losses.pop('proposals')
    own = sum(losses.values())
    (gradient,) = torch.autograd.grad(own, weight, retain_graph=True, allow_unused=True)
    # So the library's loss does not train these heads.
    assert gradient is None or not gradient.any()
    (gradient,) = torch.autograd.grad(proposals, weight)
    assert gradient.abs().max() > 1e-3


def test_cells_by_hand(scenes):
    digits = torch.tensor([[3, 5, -1, -1, -1]])
    boxes = torch.zeros(1, 5, 4, dtype=torch.long)
    boxes[0, 0] = torch.tensor([0, 0, 12, 12])  # small, centre 6, 6
    boxes[0, 1] = torch.tensor([32, 16, 64, 48])  # large, centre 48, 32
    one = scenes._replace(digits=digits, boxes=boxes)
    owners = assign_cells(one)[0]
    fine, middle = owners[:64].view(8, 8), owners[64:].view(4, 4)
    # fine cell centres 4, 12, ...: within 4 pixels of 6 is only 4
    assert (fine == 0).nonzero().tolist() == [[0, 0]]
    assert (fine == 1).sum() == 0  # too large for fine cells
    # middle centres 8, 24, 40, 56: within 9.6 of 48 are 40 and 56, of 32
    # are 24 and 40; the small one is too small
    assert (middle == 1).nonzero().tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    assert (middle == 0).sum() == 0


def test_every_digit_has_a_cell(scenes):
    owners = assign_cells(scenes)
    for index, digits in enumerate(scenes.digits):
        wanted = set(range(int((digits >= 0).sum())))
        # A digit may lie completely behind the cells of smaller ones.
        assert len(wanted - set(owners[index].tolist())) <= 1


def test_detection_words_have_the_ids_of_bert(tmp_path):
    tokenizer = detection_tokenizer(tmp_path)
    assert tokenizer('Three. one?').input_ids == [101, 203, 1012, 201, 1029, 102]


def test_exported_detector_gives_equal_proposals(tmp_path, scenes):
    images = scenes.images[:3]
    torch.manual_seed(0)
    detector = build_detector(ResNetBackbone(BACKBONE)).eval()
    export_grounding_dino(detector, tmp_path)
    teacher = GroundingDINOTeacher(str(tmp_path), with_text=True)
    assert teacher.strides == (8, 16, 32)
    prompt = Prompt(torch.arange(10))
    with torch.no_grad():
        expected = detect(detector, images, prompt)
        found = detect(teacher.model, images, prompt)
    # Proposals are compared before the choice of queries, which near ties of
    # random scores may change.
    shown = expected.enc_outputs_class.isfinite()
    torch.testing.assert_close(
        found.enc_outputs_class[shown], expected.enc_outputs_class[shown], rtol=0.0, atol=0.1
    )
    processor = AutoProcessor.from_pretrained(tmp_path)
    inputs = processor(images=[images[0].numpy()], text='three. one.', return_tensors='pt')
    assert inputs['pixel_values'].shape == (1, 3, 64, 64)
    assert inputs['input_ids'][0].tolist() == [101, 203, 1012, 201, 1012, 102]
