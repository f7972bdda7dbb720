import pytest
import torch

from kpu_mm.analysis.batches import Batch
from kpu_mm.structures import Features
from tools.analysis_tools.teacher_stats import common_space, measure_teachers, own_space


def test_values_and_ratio():
    torch.manual_seed(0)
    images = torch.randn(6, 3, 8, 8)
    batches = [Batch(images[:4], None), Batch(images[4:], None)]

    def small(images, mask):
        return Features(images.mean((2, 3)), (images, 2 * images))

    def large(images, mask):
        return Features(None, (20 * images + 1,))

    report = measure_teachers(
        dict(small=(small, ['stride 8', 'stride 16']), large=(large, ['x'])),
        dict(small=batches, large=batches),
    )
    std = images.std(correction=0).item()
    teachers = report['teachers']
    assert list(teachers['small']) == ['summary', 'stride 8', 'stride 16', 'all maps']
    assert list(teachers['large']) == ['x', 'all maps']
    assert teachers['small']['stride 16']['std'] == pytest.approx(2 * std)
    mean = 20 * images.mean().item() + 1
    assert teachers['large']['x']['mean'] == pytest.approx(mean, rel=1e-4)
    pooled = torch.cat([images, 2 * images]).std(correction=0).item()
    # all else only one teacher has
    assert report['ratios'] == {'all maps': pytest.approx(20 * std / pooled)}


def test_maps_of_one_name_count_together():
    images = torch.rand(2, 3, 4, 4)

    def extract(images, mask):
        return Features(None, (images, 5 * images, 7 * images))

    space = {n: (extract, ['a', 'b', 'a']) for n in ('x', 'y')}
    batches = dict(x=[Batch(images, None)], y=[Batch(2 * images, None)])
    report = measure_teachers(space, batches)
    together = torch.cat([images, 7 * images]).std(correction=0).item()
    assert report['teachers']['x']['a']['std'] == pytest.approx(together)
    assert report['ratios'] == {output: pytest.approx(2) for output in ('a', 'b', 'all maps')}


@torch.no_grad()
def test_both_spaces_of_a_run(distilled):
    model = distilled[2]
    images = torch.rand(2, 3, 56, 84) * 255
    mask = torch.ones(2, 56, 84, dtype=torch.bool)
    mask[1, :, 42:] = False
    batches = {n: [Batch(images, mask)] for n in model.teachers}
    own = measure_teachers(own_space(model.teachers), batches)['teachers']
    common = measure_teachers(common_space(model), batches)
    for name, teacher in model.teachers.items():
        features = teacher(images, mask)
        valid = features.masks[0].expand_as(features.maps[0])
        expected = features.maps[0][valid].std(correction=0).item()
        (output,) = [o for o in own[name] if o.startswith('map 0')]
        assert output == f'map 0, stride {teacher.strides[0]}'
        assert own[name][output]['std'] == pytest.approx(expected, rel=1e-4)
        link = model.links[name]
        levels = [link.levels.pairs[k][1] for k in link.unified]
        place = levels.index(2)
        rows = features.maps[0].movedim(1, -1)[features.masks[0][:, 0]]
        expected = link.t2s.maps[place](rows).std(correction=0).item()
        found = common['teachers'][name]['stride 16']['std']
        assert found == pytest.approx(expected, rel=1e-4)
    # of the student's levels only stride 16 has learnt from both
    assert set(common['ratios']) == {'summary', 'stride 16', 'all maps'}
