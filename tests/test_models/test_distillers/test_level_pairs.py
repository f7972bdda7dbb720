from kpu_mm.models.distillers.level_pairs import pair_levels

STUDENT = (4, 8, 16, 32)


def test_the_papers_teachers_reach_every_level():
    pairs = pair_levels(dict(clip=(16,), grounding_dino=(8, 16, 32)), STUDENT)
    assert pairs == dict(
        clip=[(0, 2)], grounding_dino=[(0, 0), (0, 1), (1, 2), (2, 3)]
    )


def test_one_coarse_teacher_trains_all_levels():
    assert pair_levels(dict(clip=(14,)), STUDENT) == dict(
        clip=[(0, 0), (0, 1), (0, 2), (0, 3)]
    )
