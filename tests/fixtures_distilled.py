"""A distiller's config and checkpoint."""

import pytest
import torch

from kpu_mm.models import KPUDistiller
from tests.runs import DATASET, write_images


@pytest.fixture(scope='session')
def distilled(tmp_path_factory, dinov2_dir, dinov3_dir):
    """Config and checkpoint of a distiller that has left its initial values.

    ``teacher`` has a summary and one map, ``other`` is another family.
    """
    torch.manual_seed(0)
    config = dict(
        type='kpu_mm.KPUDistiller',
        student=dict(
            type='kpu_mm.KPUBackbone',
            sentinel=str(dinov2_dir),
            inplanes=8,
            num_interactions=2,
            norm_cfg=dict(type='SyncBN'),
        ),
        teachers=dict(
            teacher=dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir)),
            other=dict(type='kpu_mm.DINOTeacher', source=str(dinov3_dir)),
        ),
        projector=dict(type='kpu_mm.MLPProjector', hidden=24),
    )
    model = KPUDistiller(**{k: v for k, v in config.items() if k != 'type'})
    for name, p in model.named_parameters():
        if 'sentinel' not in name:
            p.data += 0.1 * torch.randn_like(p)
    for module in model.modules():
        if isinstance(module, torch.nn.SyncBatchNorm):
            module.running_mean += 0.1 * torch.randn_like(module.running_mean)
    checkpoint = tmp_path_factory.mktemp('distilled') / 'iter_1.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    return config, checkpoint, model.eval()


@pytest.fixture(scope='session')
def distilled_run(distilled, tmp_path_factory):
    """A config file with that model and a stream for each teacher."""
    folder = tmp_path_factory.mktemp('distilled_run')
    write_images(folder / 'images')
    dataset = DATASET.format(root=str(folder / 'images'))
    stream = f'dict(batch_size=4, num_workers=0, dataset={dataset})'
    path = folder / 'config.py'
    path.write_text(
        f'model = {distilled[0]!r}\n'
        f'train_dataloader = dict(teacher={stream}, other={stream})\n'
    )
    return path
