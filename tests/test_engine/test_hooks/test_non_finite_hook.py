from types import SimpleNamespace

import pytest
import torch

from kpu_mm.engine import NonFiniteHook


def test_names_what_is_not_finite():
    hook = NonFiniteHook()
    runner = SimpleNamespace(work_dir='work_dirs/x')
    hook.after_train_iter(runner, 3, outputs={'loss': 1.0, 's2t/a': 2.0})
    with pytest.raises(FloatingPointError, match='iteration 5: s2t/a = nan'):
        hook.after_train_iter(
            runner, 4, outputs={'loss': 1.0, 's2t/a': float('nan')}
        )


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_losses_that_are_still_tensors(value):
    hook = NonFiniteHook()
    runner = SimpleNamespace(work_dir='work_dirs/x')
    loss = torch.ones((), requires_grad=True)
    hook.after_train_iter(runner, 3, outputs={'loss': loss, 'acc': 1.0})
    bad = {'loss': loss, 'loss_cls': loss * value}
    with pytest.raises(FloatingPointError, match=f'loss_cls = {value}'):
        hook.after_train_iter(runner, 4, outputs=bad)
