import torch

from kpu_mm.export import read_student
from kpu_mm.export.raw_student import RawStudent


def test_names_what_student_and_heads_give(distilled):
    student = read_student(distilled[0], distilled[1])
    head = student.head('other')
    images = torch.rand(2, 3, 50, 75) * 255
    with torch.no_grad():
        named = RawStudent(student.backbone, dict(other=head))(images)
        backbone = distilled[2].student
        features = backbone.extract(backbone.normalise(images))
        projected = head(features, (50, 75))
    expected = dict(summary=features.summary)
    for stride, m in zip((4, 8, 16, 32), features.maps, strict=True):
        expected[f'map_{stride}'] = m
    expected['other_summary'] = projected.summary
    expected['other_map_0'] = projected.maps[0]
    assert list(named) == list(expected)
    for name, value in expected.items():
        assert torch.equal(named[name], value), name
