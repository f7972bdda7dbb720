import json
import sys
from types import SimpleNamespace

import torch
from mmengine.structures import InstanceData

from kpu_mm.structures import Features
from projects.micro_lab import detector
from projects.micro_lab.detector import box_precision, evaluate_detector
from projects.micro_lab.evaluate import KPU, student_backbone
from projects.micro_lab.scene_pool import SIZE


class Oracle:
    """A detector that knows the boxes, and moves them to the right."""

    def __init__(self, pixels):
        self.pixels = torch.tensor([pixels, 0, pixels, 0])

    def predict(self, features, samples):
        for sample in samples:
            truth = sample.gt_instances
            sample.pred_instances = InstanceData(
                bboxes=truth.bboxes + self.pixels,
                labels=truth.labels,
                scores=torch.ones(len(truth)),
            )
        return samples


def test_the_truth_scores_one_and_what_lies_apart_zero(scenes):
    features = torch.zeros(len(scenes.images), 4, 8, 8)
    assert box_precision(Oracle(0), features, scenes) == 1
    assert box_precision(Oracle(SIZE), features, scenes) == 0
    # by one of 8 to 45 pixels: only the high thresholds of the overlap are missed
    assert 0.5 < box_precision(Oracle(1), features, scenes) < 1


def test_learns_from_features_and_not_without(scenes, monkeypatch):
    """Scored on the scenes that it learns."""
    monkeypatch.setattr(detector, '_WARMUP', 10)
    monkeypatch.setattr(detector, '_BATCH', 8)
    monkeypatch.setattr(detector, '_RATE', 3e-4)
    few = scenes.take(slice(8))
    encode = student_backbone(KPU, None)
    assert evaluate_detector(encode, few, few, 100, (8,))['box_ap_8'] > 0.4

    def blind(images):
        features = encode(images)
        return Features(None, tuple(torch.zeros_like(m) for m in features.maps))

    assert evaluate_detector(blind, few, few, 100, (8,))['box_ap_8'] < 0.1


def test_writes_its_scores_beside_the_run(pools, tmp_path, monkeypatch):
    asked = []

    def load_pool(folder, split, seed, count):
        asked.append((split, seed, count))
        return SimpleNamespace(split=split)

    def scores(encode, train, test, steps):
        return dict(box_ap=steps, split=test.split)

    monkeypatch.setattr(detector, 'load_pool', load_pool)
    monkeypatch.setattr(detector, 'evaluate_detector', scores)
    command = ['detector', tmp_path / 'run', KPU, '--pools', pools, '--untrained', 1]
    monkeypatch.setattr(sys, 'argv', [str(a) for a in (*command, '--steps', 3)])
    detector.main()
    written = json.loads((tmp_path / 'run' / 'detected' / 'scores.json').read_text())
    assert written == dict(box_ap=3, split='test')
    assert asked == [('train', 2, 8000), ('test', 0, 1000)]
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--validate'])
    asked.clear()
    detector.main()
    assert asked[1] == ('train', 5, 1000)
