"""tools/demo.py, in a process of its own once and else in this one."""

import json
import runpy
import sys
from typing import NamedTuple

import pytest

from kpu_mm.apis import ZeroShotDetectionInferencer
from kpu_mm.export import write_student
from kpu_mm.models.student import open_student
from tests.runs import ROOT, run_tool


@pytest.fixture(scope='module')
def student_dir(zero_shot_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exported') / 'student'
    return write_student(open_student(zero_shot_run / 'iter_1.pth'), folder)


class Done(NamedTuple):
    """What a process would leave behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def demo(monkeypatch, capsys):
    """The tool in this process."""
    tool = str(ROOT / 'tools' / 'demo.py')

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        capsys.readouterr()
        try:
            runpy.run_path(tool, run_name='__main__')
        except SystemExit as stop:
            return Done(stop.code, *capsys.readouterr())
        return Done(0, *capsys.readouterr())

    return call


def error_of(done):
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture
def image(labeled):
    return labeled / 'coco/val/1.png'


@pytest.mark.slow
def test_boxes_are_the_inferencer_s(student_dir, image, tmp_path):
    done = run_tool(
        'demo.py', 'zero-shot-detect', image, '--model', student_dir,
        '--text', 'a cat and the dog', '--threshold', 0.5, '--device', 'cpu',
        '--encoder', 'teacher', '--out-dir', tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    infer = ZeroShotDetectionInferencer(student_dir, device='cpu', encoder='teacher')
    (expected,) = infer(image, texts='a cat and the dog', threshold=0.5)['predictions']
    told = json.loads(line)
    assert told['scores'] == pytest.approx(expected['scores'], rel=1e-3)
    assert told['names'] == expected['names'] and expected['names']
    written = json.loads((tmp_path / 'preds/1.json').read_text())
    assert written == told
    assert (tmp_path / 'vis/1.png').is_file()


def test_a_line_for_each_image(demo, student_dir, image, tmp_path):
    done = demo(
        'zero-shot-segment', image.parent, '--model', student_dir,
        '--classes', 'cat', 'red car', '--templates', 'a {}.', 'my {}.',
        '--score-maps', 'cosine', '--batch-size', 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert line['names'] == ['cat', 'red car']
        assert line['scores'] == [2, 64, 64] and line['sem_seg'] == [64, 64]
        assert sum(line['shares']) == pytest.approx(1)


def test_features_of_a_teacher_that_moved(demo, student_dir, image, siglip_dir):
    done = demo(
        'features', image, '--model', student_dir, '--encoder', 'teacher',
        '--teacher', 'clip', '--image-size', 64,
        '--teacher-cfg', f'model=local-dir:{siglip_dir}',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told['summary'] == [64] and told['maps_0'] == [64, 10, 10]


def test_trained_decoder_without_weights(demo, labeled, image):
    done = demo('detect', image, '--model', labeled / 'coco.py')
    assert 'pass the checkpoint as weights' in error_of(done)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('zero-shot-classify', 'x.png'), 'required: --model'),
        (('segment', 'x.png', '--model', 'y', '--text', 'a'), '--text a'),
        (('dance', 'x.png'), 'invalid choice'),
        (
            ('zero-shot-detect', 'x.png', '--model', 'zero_shot/coco/kpu'),
            "did you mean one of ['zero_shot/coco/kpu-vitb'",
        ),
    ],
)
def test_one_sentence_for_what_is_wrong(demo, arguments, message):
    assert message in error_of(demo(*arguments))


def test_one_sentence_for_an_empty_question(demo, student_dir, image):
    done = demo(
        'zero-shot-classify', image, '--model', student_dir,
        '--classes', 'cat', 'of the',
    )  # fmt: skip
    assert error_of(done).startswith("demo.py: error: 'of the' names nothing")
