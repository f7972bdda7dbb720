import argparse

import pytest
import torch

from kpu_mm.utils.analysis_arguments import device, positive


@pytest.mark.parametrize('text', ['0', '-1', '1.5', 'many', ''])
def test_positive(text):
    assert positive('12') == 12
    with pytest.raises(argparse.ArgumentTypeError, match=repr(text)):
        positive(text)


def test_device():
    assert device('cuda:1') == torch.device('cuda', 1)
    with pytest.raises(argparse.ArgumentTypeError, match='abacus'):
        device('abacus')
