from __future__ import annotations

from kpu_mm.datasets.tar_source import expand_braces


def test_braces_expand_as_in_a_shell():
    assert list(expand_braces('a{08..11}.tar')) == ['a08.tar', 'a09.tar', 'a10.tar', 'a11.tar']
    assert list(expand_braces('{x,y}-{1..2}')) == ['x-1', 'x-2', 'y-1', 'y-2']
    assert list(expand_braces('plain*')) == ['plain*']
