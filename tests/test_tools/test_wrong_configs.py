"""Wrong configs end in one sentence that names the key."""

import importlib.util
import re
import sys

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.utils import manager

from kpu_mm.datasets import DataError, UnlabeledImages
from kpu_mm.models import KPUDistiller
from tests.runs import ROOT

STREAM = 'train_dataloader.dino'
# key, value (None removes it), and what the sentence must say
WRONG = [
    ('model', None, "the key 'model' is missing"),
    ('model.type', 'kpu_mm.KPUDistillerr', r'model: .*kpu_mm\.KPUDistiller\b'),
    ('model.normalizers', 5, "model: .*takes 'normalizer'"),
    ('model.student.type', 'kpu_mm.KPUBackbon', 'student: .*KPUBackbone'),
    ('model.student.sentinel', '/no/where', "student: .*'/no/where' does not"),
    ('model.student.sentinel', None, "student: .*'sentinel', which is missin"),
    ('model.student.sentinal', 'x', "student: .*takes 'sentinel'"),
    ('model.student.out_type', 'pyramids', "student: out_type='pyramids'"),
    ('model.student.num_interactions', 'four', 'student: .*be an integer'),
    ('model.student.norm_cfg.type', 'BNN', r'student\.norm_cfg: .*BNN'),
    ('model.teachers.dino.type', 'kpu_mm.Teacher', r'teachers\.dino: .*known'),
    ('model.teachers.dino.sorce', 'x', r"teachers\.dino: .*takes 'source'"),
    ('model.teachers.dino.source', '/no', r'teachers\.dino: .*does not exist'),
    ('model.projector.hiden', 3, "projector: .*takes 'hidden'"),
    ('train_dataloader', None, 'train_dataloader, train_cfg'),
    (f'{STREAM}.batchsize', 2, "dataloader.dino: .*'batchsize'"),
    (f'{STREAM}.batch_size', None, "dataloader.dino: .*'batch_size'"),
    (f'{STREAM}.dataset.type', 'kpu_mm.Images', 'dino.dataset: .*Unlabeled'),
    (f'{STREAM}.dataset.sources.root', '/no', "dataset.sources: .*'/no'"),
    (f'{STREAM}.dataset.sources.rot', 'x', "dataset.sources: .*'root'"),
    (f'{STREAM}.dataset.pipeline', 'x', 'dino.dataset: pipeline must be a l'),
    (f'{STREAM}.dataset.pipeline.0.sise', 5, "pipeline.0: .*takes 'size'"),
    (f'{STREAM}.dataset.pipelin', [], "dino.dataset: .*takes 'pipeline'"),
    ('optim_wrapper.optimizer.type', 'AdamX', 'optimizer: .*AdamX.*Adam'),
    ('optim_wrapper.optimizer.weight_dcay', 1, "optimizer: .*'weight_decay'"),
    ('param_scheduler.type', 'Cosine', 'param_scheduler: .*CosineAnnealingLR'),
    ('train_cfg.max_iters', None, "train_cfg: .*'max_iters', which is miss"),
    ('train_cfg.max_itrs', 3, "train_cfg: .*takes 'max_iters'"),
    ('custom_hooks.0.type', 'kpu_mm.NonFinitHook', r'custom_hooks\.0: .*NonFinite'),
    ('default_hooks.logger.intervall', 3, "logger: .*takes 'interval'"),
    ('default_hooks.checkpoint.interval', 'often', 'checkpoint: interval must be an integer'),
    ('default_hooks.checkpoint.intervall', 3, "checkpoint: .*takes 'interval'"),
    ('default_hooks.checkpoint.max_keep_ckpts', 2.5, 'checkpoint: max_keep_ckpts must be'),
    ('param_scheduler.eta_min', 'low', 'param_scheduler.*: eta_min must be a finite'),
    ('param_scheduler.T_max', '40', 'param_scheduler.*: T_max must be an integer'),
    ('custom_hooks', 'x', 'hook should be an instance of Hook or dict'),
    ('model.student', 'x', "'x' must be a config with a type"),
    ('model.teachers.dino', 'x', 'teachers.dino must be an object'),
    ('train_dataloader.coarse', None, r"has no stream \['coarse'\]"),
    ('optim_wrapper.optimizer.lr', 'fast', 'optimizer: lr must be a finite'),
    ('randomness', dict(sed=1), "unexpected keyword argument 'sed'"),
    ('log_processor', dict(windowsize=3), "log_processor: .*'windowsize'"),
    ('env_cfg', 'x', "env_cfg|'str' object has no attribute"),
    ('log_level', 'LOUD', "'LOUD' is missing or unknown"),
    ('runner_type', 'kpu_mm.KPURuner', 'kpu_mm.KPURuner'),
]


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('tools_train', ROOT / 'tools' / 'train.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def train(tool, monkeypatch, tmp_path):
    """The tool in this process."""

    def call(cfg):
        cfg.dump(tmp_path / 'config.py')
        command = ['train.py', tmp_path / 'config.py', '--work-dir', tmp_path]
        monkeypatch.setattr(sys, 'argv', list(map(str, command)))
        tool.main()

    yield call
    MMLogger._instance_dict.clear()
    # MMEngine keeps its lock when a logger of a wrong level cannot be made,
    # and every other thread that builds a model would wait for it.
    while manager._lock._is_owned():
        manager._lock.release()


def change(cfg, path, value):
    *parents, key = path.split('.')
    part = cfg
    for parent in parents:
        part = part[int(parent) if parent.isdigit() else parent]
    if value is None:
        part.pop(key)
    else:
        part[key] = value
    return cfg


@pytest.mark.parametrize(('path', 'value', 'words'), WRONG)
def test_one_sentence(run_config, train, capsys, path, value, words):
    cfg = change(Config.fromfile(run_config), path, value)
    with pytest.raises(SystemExit) as end:
        train(cfg)
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith('train.py: error: ') and len(said) < 900
    assert re.search(words, said), said


def test_a_bug_in_a_step_keeps_its_traceback(run_config, train, monkeypatch):
    def fail(*_, **__):
        raise ValueError('a bug')

    monkeypatch.setattr(KPUDistiller, 'train_step', fail)
    with pytest.raises(ValueError, match='a bug'):
        train(Config.fromfile(run_config))


@pytest.mark.parametrize('workers', [0, 1])
def test_files_that_contradict_their_labels_end_in_their_sentence(
    run_config, train, monkeypatch, capsys, workers
):
    def fail(*_):
        raise DataError("'a.png' is 3 x 4; correct the labels")

    monkeypatch.setattr(UnlabeledImages, '__getitem__', fail)
    cfg = change(Config.fromfile(run_config), f'{STREAM}.num_workers', workers)
    with pytest.raises(SystemExit) as end:
        train(cfg)
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "train.py: error: 'a.png' is 3 x 4; correct the labels"


def test_traceback_on_demand(run_config, train, monkeypatch):
    monkeypatch.setenv('KPU_MM_TRACEBACK', '1')
    cfg = change(Config.fromfile(run_config), 'model.student.sise', 3)
    with pytest.raises(TypeError, match='sise'):
        train(cfg)
