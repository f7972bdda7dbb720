import pytest
import torch
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

from kpu_mm.models.zero_shot import GroundingDecoder

NAMES = ['remote control', 'cat', 'a dog', 'person', 'control', 'dog cat person']
# Scores are at most 1, and ours average a name's tokens in another order.
ROUNDING = 2 * torch.finfo(torch.float32).eps


@pytest.fixture(scope='module')
def decoder(grounding_dino_dir):
    return GroundingDecoder(dict(source=str(grounding_dino_dir)))


@pytest.fixture(scope='module')
def images():
    """Two images, one of them padded."""
    mask = torch.ones(2, 96, 128, dtype=torch.bool)
    mask[1, 80:] = mask[1, :, 100:] = False
    return torch.rand(2, 3, 96, 128) * 255, mask


@torch.no_grad()
def by_hand(folder, pixels, mask, names):
    """transformers alone; (scores (B, Q, K), boxes (B, Q, 4))."""
    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = GroundingDinoProcessor.from_pretrained(folder)
    text = '. '.join(names) + '.'
    batch = processor(text=[text] * 2, return_tensors='pt')
    out = model(pixel_values=pixels, pixel_mask=mask.long(), **batch)
    offsets = processor.tokenizer(text, return_offsets_mapping=True)
    scores, start = [], 0
    for name in names:
        inside = [
            i
            for i, (a, b) in enumerate(offsets['offset_mapping'])
            if a < b and a >= start and b <= start + len(name)
        ]
        scores.append(out.logits.sigmoid()[..., inside].mean(-1))
        start += len(name) + 2
    center, size = out.pred_boxes.split(2, -1)
    boxes = torch.cat([center - size / 2, center + size / 2], -1)
    return torch.stack(scores, -1), boxes, out


def test_teacher_s_own_maps_give_its_own_boxes(decoder, images, grounding_dino_dir):
    names = NAMES[:4]
    maps = decoder.teacher(*images).maps
    pixels, _ = decoder.teacher.prepare(*images)
    scores, boxes, _ = by_hand(grounding_dino_dir, pixels, images[1], names)
    found = decoder.detect(maps, names, images[1], max_per_image=9999)
    for i, result in enumerate(found):
        # every query and class is there, with its very box
        order = scores[i].flatten().argsort(descending=True)
        torch.testing.assert_close(result.scores, scores[i].flatten()[order], rtol=0, atol=1e-7)
        queries = {tuple(b.tolist()) for b in boxes[i]}
        assert {tuple(b.tolist()) for b in result.boxes} == queries
        for score, label, box in zip(result.scores, result.labels, result.boxes, strict=True):
            query = (boxes[i] == box).all(-1).nonzero()[:, 0]
            gap = (scores[i][query, label] - score).abs()
            assert gap.min() <= 1e-7
        assert result.scores.std() > 1e-4


def test_masks_count(decoder, images):
    maps = decoder.teacher(*images).maps
    whole, masked = (decoder.detect(maps, NAMES[:2], mask) for mask in (None, images[1]))
    torch.testing.assert_close(whole[0].scores, masked[0].scores)
    assert (whole[1].scores - masked[1].scores).abs().max() > 1e-3


def test_several_prompts_are_merged(decoder, images, grounding_dino_dir):
    """The limit of 8 makes three prompts; each is run by hand."""
    maps = decoder.teacher(*images).maps
    pixels, _ = decoder.teacher.prepare(*images)
    decoder.limit = 8
    found = decoder.detect(maps, NAMES, images[1], max_per_image=40)
    decoder.limit = 64
    parts = (NAMES[:2], NAMES[2:4], NAMES[4:])
    expected = [[], []]
    first = 0
    for part in parts:
        scores, boxes, _ = by_hand(grounding_dino_dir, pixels, images[1], part)
        for i in range(2):
            expected[i] += [
                (scores[i, q, k].item(), first + k, boxes[i, q])
                for q in range(20)
                for k in range(len(part))
            ]
        first += len(part)
    for result, candidates in zip(found, expected, strict=True):
        best = sorted(candidates, key=lambda c: -c[0])[:40]
        torch.testing.assert_close(
            result.scores, torch.tensor([c[0] for c in best]), rtol=0, atol=ROUNDING
        )
        assert len(set(result.labels.tolist())) > 1
        for k, (score, label, box) in enumerate(best):
            near = (result.scores - score).abs() <= ROUNDING
            same = near & (result.labels == label)
            same &= torch.isclose(result.boxes, box, atol=1e-6).all(-1)
            assert same.any(), k
        assert result.names == tuple(NAMES)


def test_free_text_as_transformers_grounds_it(decoder, images, grounding_dino_dir):
    text = 'a cat and the remote control'
    maps = decoder.teacher(*images).maps
    pixels, _ = decoder.teacher.prepare(*images)
    _, _, out = by_hand(grounding_dino_dir, pixels, images[1], [text])
    level = out.logits.sigmoid().max(-1).values.median().item()
    expected = decoder.processor.post_process_grounded_object_detection(
        out, threshold=level, text_threshold=level,
        input_ids=decoder.processor(text=[text + '.'] * 2).input_ids,
    )  # fmt: skip
    found = decoder.ground(maps, text, images[1], threshold=level, text_threshold=level)
    for result, theirs in zip(found, expected, strict=True):
        order = theirs['scores'].argsort(descending=True)
        assert torch.equal(result.scores, theirs['scores'][order])
        assert torch.equal(result.boxes, theirs['boxes'][order])
        # [SEP] is no name: the box has that of its phrase, here the text
        phrases = [theirs['text_labels'][i] for i in order]
        phrases = [p if p != '[SEP]' else 'a cat [UNK] [UNK] remote control' for p in phrases]
        assert [result.names[k] for k in result.labels] == phrases
        assert len(result.scores) > 0


def test_each_box_has_a_name(decoder, images, monkeypatch):
    """Where no token is above text_threshold, the phrase of the best one."""
    maps = decoder.teacher(*images).maps
    run = decoder._run

    def raised(*args):
        out = run(*args)
        # [CLS] a cat . dog . [SEP]: each query finds one token
        out.logits[:, :, :7] = -4.0
        for query, token in enumerate((2, 1, 4, 5)):
            out.logits[:, query, token] = 0.1 * query
        return out

    monkeypatch.setattr(decoder, '_run', raised)
    # the full stop, found best, is no name
    expected = {0.4: ['a cat', 'dog', 'a', 'cat'], 0.9: ['a cat', 'dog', 'a cat', 'a cat']}
    for text_threshold, names in expected.items():
        for found in decoder.ground(maps, 'a cat. dog', images[1], 0.3, text_threshold):
            assert [found.names[k] for k in found.labels] == names


def test_model_without_a_tokenizer(grounding_dino_dir, tmp_path):
    for name in ('config.json', 'model.safetensors'):
        (tmp_path / name).symlink_to(grounding_dino_dir / name)
    (tmp_path / 'preprocessor_config.json').symlink_to(
        grounding_dino_dir / 'preprocessor_config.json'
    )
    with pytest.raises(FileNotFoundError, match=r'put preproc.*tokenizer\.js'):
        GroundingDecoder(dict(source=str(tmp_path)))
