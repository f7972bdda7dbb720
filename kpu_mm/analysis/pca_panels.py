"""PCA pictures of the same image by every model of a run."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.visualization import pca_rgb

from .distilled import all_models, extract_pairs


@torch.no_grad()
def pca_panels(
    distiller: KPUDistiller, image: Tensor
) -> dict[str, np.ndarray]:
    """An image and what each model makes of it.

    Each model has its own main directions as colours; the student in a
    teacher's space has the teacher's, so that equal features look equal.

    Args:
        distiller: The distiller.
        image: One raw image, (1, 3, H, W).

    Returns:
        By title, pictures (h, w, 3) in [0, 1]: the image, the sentinel (if
        there is one), the student's levels; then, map by map, each teacher
        and the student in its place.
    """
    models = all_models(distiller)
    pictures = dict(image=image[0].float().cpu() / 255)
    if 'sentinel' in models:
        pictures['sentinel'] = pca_rgb(
            models['sentinel'](image, None).maps[0][0]
        )
    levels = models['student'](image, None).maps
    for stride, level in zip(distiller.student.strides, levels, strict=True):
        pictures[f'student\nstride {stride}'] = pca_rgb(level[0])
    for name in distiller.teachers:
        pictures |= _teacher_and_student(distiller, name, image)
    return {
        title: picture.permute(1, 2, 0).cpu().numpy()
        for title, picture in pictures.items()
    }


def _teacher_and_student(
    distiller: KPUDistiller, name: str, image: Tensor
) -> dict[str, Tensor]:
    link = distiller.links[name]
    student, teacher = extract_pairs(distiller, name, image)
    guess = None
    if link.s2t is not None:
        guess = link.to_teacher(student, like=teacher)
    pictures = {}
    for i, (index, level) in enumerate(link.levels.pairs):
        stride = link.levels.strides[index]
        shown = teacher.maps[i][0]
        place = f'map {index}, stride {stride}'
        pictures[f'{name}\n{place}'] = pca_rgb(shown)
        if guess is not None:
            own = distiller.student.strides[level]
            title = f'student, stride {own}\nas {name}, map {index}'
            pictures[title] = pca_rgb(guess.maps[i][0], like=shown)
    return pictures
