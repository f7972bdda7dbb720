import torch

from kpu_mm.models.level_map import LevelMap, map_levels

STUDENT = (4, 8, 16, 32)


def pairs_of(maps):
    return {name: list(levels.pairs) for name, levels in maps.items()}


def test_the_papers_teachers_reach_every_level():
    maps = map_levels(dict(clip=(16,), grounding_dino=(8, 16, 32)), STUDENT)
    assert pairs_of(maps) == dict(clip=[(0, 2)], grounding_dino=[(0, 0), (0, 1), (1, 2), (2, 3)])
    assert maps['grounding_dino'].strides == (8, 16, 32)


def test_one_coarse_teacher_trains_all_levels():
    assert pairs_of(map_levels(dict(clip=(14,)), STUDENT)) == dict(
        clip=[(0, 0), (0, 1), (0, 2), (0, 3)]
    )


def test_closest_level_of_each_map():
    levels = LevelMap((8, 16), ((0, 0), (0, 1), (1, 2)))
    assert levels.closest(STUDENT) == (1, 2)
    alone = LevelMap((14,), ((0, 0), (0, 1), (0, 2), (0, 3)))
    assert alone.closest(STUDENT) == (2,)


def test_a_state_dict_keeps_it():
    levels = LevelMap((8, 16), ((0, 0), (0, 1), (1, 2)))
    state = levels.to_tensor()
    assert state.dtype == torch.uint8
    assert LevelMap.from_tensor(state) == levels
