from unittest.mock import Mock

import pytest
import torch
from mmengine.logging import MessageHub

from kpu_mm.engine import SkippedImagesHook


def make_runner(name):
    runner = Mock()
    runner.message_hub = MessageHub.get_instance(name)
    return runner


def batch(skipped):
    images = torch.zeros(4, 3, 8, 8)
    return dict(streams=dict(a=dict(images=images, skipped=skipped)))


def warnings(runner):
    return [c.args[0] for c in runner.logger.warning.call_args_list]


def test_named_counted_and_kept_in_the_message_hub():
    runner = make_runner('skip_count')
    hook = SkippedImagesHook(interval=2)
    hook.before_train_iter(runner, 0, batch([('x.jpg', 'truncated')]))
    assert not warnings(runner)
    hook.before_train_iter(runner, 1, batch([('y.jpg', 'empty')]))
    assert warnings(runner) == [
        'skipped x.jpg: truncated',
        'skipped y.jpg: empty',
        '2 of 10 images skipped so far.',
    ]
    # a resumed run has a new hook and the old message hub
    hook = SkippedImagesHook(interval=1)
    hook.before_train_iter(runner, 2, batch([('z.jpg', 'empty')]))
    assert warnings(runner)[-1] == '3 of 15 images skipped so far.'


def test_limit():
    runner = make_runner('skip_limit')
    hook = SkippedImagesHook(max_share=0.19, min_images=8, interval=1)
    hook.before_train_iter(runner, 0, batch([('a', ''), ('b', '')]))
    with pytest.raises(RuntimeError, match='2 of 10 images could not be read'):
        hook.before_train_iter(runner, 1, batch([]))
