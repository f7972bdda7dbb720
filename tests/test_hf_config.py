"""KPUConfig without models."""

import subprocess
import sys

import pytest

import kpu_mm  # noqa: F401
from kpu_mm.hf_config import KPUConfig

CODE = """
import sys
import kpu_mm
assert 'transformers' not in sys.modules
from transformers import AutoConfig
config = AutoConfig.for_model('kpu', out_indices=[1, -1])
assert config.out_features == ['stage2', 'stage4']
assert 'kpu_mm.hf_models' not in sys.modules
from transformers import AutoModel
from kpu_mm.hf_models import KPUModel
assert AutoModel._model_mapping[type(config)] is KPUModel
assert 'kpu_mm.models.backbones' not in sys.modules
"""


def test_each_part_is_imported_when_it_is_asked_for(tmp_path):
    done = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('first', ['import kpu_mm', 'import transformers', 'pass'])
def test_models_are_known_when_they_are_imported_first(first):
    code = f"""
{first}
from kpu_mm.hf_models import KPUModel
from kpu_mm.hf_config import KPUConfig
from transformers import AutoModel
assert AutoModel._model_mapping[KPUConfig] is KPUModel
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('first', ['import kpu_mm', 'from transformers import AutoImageProcessor'])
def test_processors_are_known_whatever_is_imported_first(first):
    code = f"""
{first}
import kpu_mm
from kpu_mm.hf_config import KPUConfig
from transformers import BitImageProcessor, BitImageProcessorFast
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
assert IMAGE_PROCESSOR_MAPPING[KPUConfig] == (BitImageProcessor, BitImageProcessorFast)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_goes_through_a_dict():
    config = KPUConfig(backbone=dict(inplanes=8), frozen='all', out_indices=[2, 3])
    again = KPUConfig.from_dict(config.to_dict())
    assert again.to_dict() == config.to_dict()
    assert again.backbone['inplanes'] == 8 and again.frozen == 'all'
    assert again.out_features == ['stage3', 'stage4'] and again.out_indices == [2, 3]


def test_gives_all_stages_unless_told():
    assert KPUConfig().out_indices == [0, 1, 2, 3]
    with pytest.raises(ValueError, match='stage5'):
        KPUConfig(out_features=['stage5'])
