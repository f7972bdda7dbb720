import pytest
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


def test_each_map_counts_the_same():
    # GroundingDINO's maps of strides 8, 16 and 32; stride 4 joined the first
    levels = LevelMap((8, 16, 32), ((0, 0), (0, 1), (1, 2), (2, 3)))
    everything = range(4)
    assert levels.weights(everything, STUDENT, 1.0) == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3])
    assert levels.weights(everything, STUDENT, 0.5) == pytest.approx([1 / 9, 2 / 9, 1 / 3, 1 / 3])
    assert levels.weights((1, 2, 3), STUDENT, 0.5) == pytest.approx([1 / 3] * 3)
    # CLIP alone: three levels joined its only map
    alone = LevelMap((16,), ((0, 0), (0, 1), (0, 2), (0, 3)))
    assert alone.weights(everything, STUDENT, 1.0) == pytest.approx([1 / 4] * 4)
    assert alone.weights(everything, STUDENT, 2.0) == pytest.approx([2 / 7, 2 / 7, 1 / 7, 2 / 7])
    # the student's one level, which all maps of a teacher chose
    plain = LevelMap((8, 16), ((0, 0), (1, 0)))
    assert plain.weights((0, 1), (16,), 1.0) == pytest.approx([1 / 2] * 2)


def test_how_many_rows_become_one():
    levels = LevelMap((8, 14, 16), ((0, 0), (0, 1), (1, 2), (2, 3)))
    assert levels.shrinks(range(4), STUDENT, to_teacher=True) == (2, 1, 1, 1)
    assert levels.shrinks((1, 3), STUDENT, to_teacher=False) == (1, 2)
    alone = LevelMap((14,), ((0, 0), (0, 3)))
    assert alone.shrinks(range(2), STUDENT, to_teacher=True) == (3, 1)
    assert alone.shrinks(range(2), STUDENT, to_teacher=False) == (1, 2)


def test_a_state_dict_keeps_it():
    levels = LevelMap((8, 16), ((0, 0), (0, 1), (1, 2)))
    state = levels.to_tensor()
    assert state.dtype == torch.uint8
    assert LevelMap.from_tensor(state) == levels
