from types import SimpleNamespace

import pytest

from kpu_mm.engine.checkpoint_hooks import JointCheckpointHook

RUNNER = SimpleNamespace(_resume=False)


def joint():
    return dict(
        state_dict={'backbone.w': 1, 'tasks.a.head.w': 2, 'tasks.b.w': 3},
        meta=dict(iter=5, dataset_meta=dict(a=dict(classes=('x',)))),
        optimizer={},
    )


def test_a_joint_checkpoint_becomes_that_of_the_task():
    checkpoint = joint()
    JointCheckpointHook('a').after_load_checkpoint(RUNNER, checkpoint)
    assert checkpoint == dict(
        state_dict={'backbone.w': 1, 'head.w': 2},
        meta=dict(iter=5, dataset_meta=dict(classes=('x',))),
    )


def test_any_other_checkpoint_stays_as_it_is():
    checkpoint = dict(state_dict={'backbone.w': 1, 'head.w': 2}, epoch=3)
    before = dict(checkpoint)
    JointCheckpointHook('a').after_load_checkpoint(RUNNER, checkpoint)
    assert checkpoint == before


def test_a_missing_task_is_named():
    with pytest.raises(ValueError, match=r"no task 'c'.*\['a', 'b'\]"):
        JointCheckpointHook('c').after_load_checkpoint(RUNNER, joint())


def test_resuming_from_a_joint_checkpoint_is_refused():
    runner = SimpleNamespace(_resume=True)
    with pytest.raises(ValueError, match='as `load_from`'):
        JointCheckpointHook('a').after_load_checkpoint(runner, joint())
