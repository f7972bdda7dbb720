"""The README of each folder of configs lists them all, with working links."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
READMES = [
    CONFIGS / 'distill' / 'README.md',
    *(
        CONFIGS / 'downstream' / task / 'README.md'
        for task in ('ade20k', 'coco', 'imagenet', 'multitask')
    ),
    CONFIGS / 'zero_shot' / 'README.md',
]


@pytest.mark.parametrize('path', READMES, ids=lambda p: p.parent.name)
def test_lists_every_config(path):
    text = path.read_text()
    links = re.findall(r'\]\(([^):]+)\)', text)  # without addresses
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing
    listed = {(path.parent / link).resolve() for link in links}
    assert set(path.parent.rglob('*.py')) <= listed
    for config in re.findall(r'\bconfigs/\S+\.py', text):
        assert (ROOT / config).exists(), config


@pytest.mark.parametrize('path', sorted(CONFIGS.rglob('metafile.yml')), ids=lambda p: p.parent.name)
def test_metafiles_name_their_readme(path):
    collections = yaml.safe_load(path.read_text())['Collections']
    for collection in collections:
        assert ROOT / collection['README'] == path.parent / 'README.md'
