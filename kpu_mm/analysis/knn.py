"""k-NN accuracy of all models of a run on the same labelled images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from kpu_mm.evaluation.functional import knn_vote
from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.structures import Features

from .distilled import Extract, all_models

Vectors = tuple[Tensor, Tensor]


def labelled_images(
    folder: str | Path,
    size: int,
    limit: int | None = None,
    num_workers: int = 0,
) -> tuple[DataLoader, list[str]]:
    """Images of a folder for each class, as raw RGB squares.

    The shorter side becomes size / 0.875 (256 for 224), and the centre is
    cut out, as in the configs for ImageNet.

    Args:
        folder: Holds a folder of images for each class.
        size: Side of the square.
        limit: Take so many images, evenly over the folder. Defaults to None,
            all.
        num_workers: Processes that load. Defaults to 0, this one.

    Returns:
        Batches of images (B, 3, size, size) uint8 and labels (B,); names of
        the classes.

    Raises:
        FileNotFoundError: If there is no such folder, or a class has no
            image.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}'.")
    steps = [
        v2.Resize(
            round(size / 0.875),
            interpolation=v2.InterpolationMode.BICUBIC,
        ),
        v2.CenterCrop(size),
        v2.PILToTensor(),
    ]
    images = ImageFolder(str(folder), v2.Compose(steps))
    chosen = list(range(len(images)))
    if limit is not None and limit < len(images):
        chosen = [i * len(images) // limit for i in range(limit)]
    loader = DataLoader(
        Subset(images, chosen), batch_size=32, num_workers=num_workers
    )
    return loader, images.classes


def vectors_of(distiller: KPUDistiller) -> dict[str, Extract]:
    """Every model of a run, and the student in each teacher's space.

    Args:
        distiller: The distiller.
    """
    models = all_models(distiller)
    for name in distiller.teachers if 's2t' in distiller.terms else ():
        models[f'student as {name}'] = partial(_projected, distiller, name)
    return models


def _projected(
    distiller: KPUDistiller, name: str, images: Tensor, mask: Tensor | None
) -> Features:
    """The student's features in a teacher's own space."""
    size = (images.shape[-2], images.shape[-1])
    features = distiller.student.encode(images, mask)
    return distiller.links[name].infer(features, size)


@torch.no_grad()
def embed(
    models: Mapping[str, Extract],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
) -> dict[str, Vectors]:
    """One normalised vector an image, by every model.

    Args:
        models: Raw images -> features. A model without a summary gives the
            mean of its coarsest map.
        batches: Images (B, 3, H, W) and labels (B,).
        device: Where the models are.

    Returns:
        By model, vectors (N, D) and labels (N,).
    """
    vectors: dict[str, list[Tensor]] = {name: [] for name in models}
    labels = []
    for images, classes in batches:
        labels.append(classes)
        for name, extract in models.items():
            features = extract(images.to(device), None)
            vector = features.summary
            if vector is None:
                vector = features.maps[-1].mean((-2, -1))
            vectors[name].append(F.normalize(vector, dim=1))
    known = torch.cat(labels).to(device)
    return {name: (torch.cat(v), known) for name, v in vectors.items()}


def knn_accuracy(
    bank: Vectors, queries: Vectors, num_classes: int, k: int = 20
) -> float:
    """Top-1 accuracy of DINO's weighted vote, in per cent.

    Args:
        bank: Vectors (N, D) whose labels (N,) vote.
        queries: Vectors (M, D) and their labels (M,).
        num_classes: Number of classes.
        k: Number of neighbours. Defaults to 20.
    """
    shares = knn_vote(queries[0], bank[0], bank[1], num_classes, k)
    right = shares.argmax(1) == queries[1]
    return 100 * right.double().mean().item()
