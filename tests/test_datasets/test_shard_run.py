from __future__ import annotations

import json

import pytest

from kpu_mm.datasets import FolderSource
from tools.dataset_tools.make_shards import ShardPlan, write_shards


class Exploding(FolderSource):
    def read(self, index):
        if index == 7:
            raise KeyError('a bug')
        return super().read(index)


@pytest.mark.parametrize('workers', [1, 3])
def test_writes_all_and_then_nothing(images, tmp_path, workers):
    (images / 'n1' / '05.JPEG').write_bytes(b'')
    plan = ShardPlan(FolderSource(str(images)), tmp_path / 'out', 5)
    report = write_shards(plan, workers)
    assert {k: report[k] for k in ('shards', 'kept', 'images')} == {
        'shards': 3,
        'kept': 0,
        'images': 11,
    }
    path = str(images / 'n1' / '05.JPEG')
    assert report['skipped'] == [[path, 'the file is empty']]
    assert json.loads((plan.folder / 'report.json').read_text()) == report
    assert write_shards(plan, workers) == report | {'kept': 3}


def test_failing_process_is_an_error_and_its_rest_is_done_later(images, tmp_path):
    source = Exploding(str(images))
    plan = ShardPlan(source, tmp_path / 'out', 5)
    with pytest.raises(RuntimeError, match='Start again'):
        write_shards(plan, 2)
    healthy = plan._replace(source=FolderSource(str(images)))
    assert write_shards(healthy, 2)['kept'] == 2
