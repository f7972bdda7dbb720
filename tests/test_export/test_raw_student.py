import torch

from kpu_mm.export import read_student
from kpu_mm.export.raw_student import RawStudent


def test_names_what_student_and_links_give(distilled):
    student = read_student(distilled[0], distilled[1])
    link = student.link('other')
    images = torch.rand(2, 3, 50, 75) * 255
    with torch.no_grad():
        named = RawStudent(student.backbone, dict(other=link))(images)
        features = distilled[2].student.encode(images)
        projected = link.infer(features, (50, 75))
    expected = dict(summary=features.summary)
    for stride, m in zip((4, 8, 16, 32), features.maps, strict=True):
        expected[f'map_{stride}'] = m
    expected['other_summary'] = projected.summary
    expected['other_map_0'] = projected.maps[0]
    assert list(named) == list(expected)
    for name, value in expected.items():
        assert torch.equal(named[name], value), name
