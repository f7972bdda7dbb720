"""A distiller's config and checkpoint."""

import pytest
import torch

from kpu_mm.models import KPUDistiller
from tests.runs import BASE, DATASET, write_images


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
        f'model = {distilled[0]!r}\ntrain_dataloader = dict(teacher={stream}, other={stream})\n'
    )
    return path


LIVE = """
_base_ = {base!r}
source = dict(type='kpu_mm.FolderSource', root={images!r})
model = dict(
    student=dict(sentinel={sentinel!r}, inplanes=8,
                 norm_cfg=dict(_delete_=True, type='GN', num_groups=4)),
    teachers=dict(
        _delete_=True,
        clip=dict(type='kpu_mm.CLIPTeacher', model={clip!r}),
        gdino=dict(type='kpu_mm.GroundingDINOTeacher', source={gdino!r})),
    projector=dict(hidden=16),
)
train_dataloader = dict(
    _delete_=True,
    clip=dict(batch_size=4, num_workers=0, dataset=dict(
        type='kpu_mm.UnlabeledImages', sources=source,
        pipeline=[dict(type='kpu_mm.DecodeRandomResizedCrop', size=64),
                  dict(type='kpu_mm.PackImage')])),
    gdino=dict(batch_size=3, num_workers=0, dataset=dict(
        type='kpu_mm.UnlabeledImages', sources=source,
        pipeline=[dict(type='kpu_mm.DecodeResize', shortest=96, longest=160),
                  dict(type='kpu_mm.PackImage')])),
)
"""


@pytest.fixture(scope='session')
def live_config(tmp_path_factory, dinov2_dir, clip_dir, grounding_dino_dir):
    """A config of two teachers, CLIP and GroundingDINO."""
    folder = tmp_path_factory.mktemp('live')
    write_images(folder / 'images')
    path = folder / 'live.py'
    path.write_text(
        LIVE.format(
            base=str(BASE),
            images=str(folder / 'images'),
            sentinel=str(dinov2_dir),
            clip=f'local-dir:{clip_dir}',
            gdino=str(grounding_dino_dir),
        )
    )
    return path
