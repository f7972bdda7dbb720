from kpu_mm.models.bare_config import bare_config
from kpu_mm.models.teachers import UnpaddedTeacher


def test_wrappers_are_taken_off():
    model = dict(type='kpu_mm.DINOTeacher', source='x')
    unpadded = dict(type=UnpaddedTeacher, teacher=model)
    cached = dict(type='kpu_mm.CachedTeacher', cache='c', teacher=unpadded)
    assert bare_config(cached) == bare_config(unpadded) == model
    assert bare_config(model) == model
    unsaid = dict(type='CachedTeacher', cache='c', teacher=None)
    assert bare_config(unsaid) == unsaid
