"""k-NN accuracy of student, sentinel and teachers on labelled folders.

    python tools/analysis_tools/knn.py configs/distill/kpu_vitb.py iter_40000.pth \
        --train imagenet/train --test imagenet/val

DINO's weighted vote (https://arxiv.org/abs/2104.14294) with each model's
summary; a teacher without one gives the mean of its coarsest map. `student as
NAME` is the student's in that teacher's space.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kpu_mm.analysis.batches import labelled_images
from kpu_mm.analysis.distilled import all_models, load_distiller
from kpu_mm.analysis.knn import knn_vote
from kpu_mm.analysis.report import bars, markdown_table, panels, write_report
from kpu_mm.datasets.class_names import ClassNames, difference
from kpu_mm.structures import Features
from kpu_mm.utils.command_line import (
    add_analysis_arguments,
    positive,
    read_config,
    refuse,
    refusing,
    tool_parser,
)

# Features of images, one row each, and their labels.
Vectors = tuple[Tensor, Tensor]
# So many images vote at a time.
_QUERIES = 1024


@torch.no_grad()
def embed(
    models: Mapping[str, Callable[..., Features]], batches: Iterable[Vectors], device: torch.device
) -> dict[str, Vectors]:
    """Compute one normalised vector an image with every model.

    Args:
        models: Raw images and no mask -> features. A model without a summary
            gives the mean of its coarsest map.
        batches: Images (B, 3, H, W) and labels (B,).
        device: Where the models are.

    Returns:
        By model, vectors (N, D) and labels (N,).
    """
    vectors: dict[str, list[Tensor]] = {name: [] for name in models}
    labels = []
    for images, classes in batches:
        labels.append(classes)
        for name, encode in models.items():
            features = encode(images.to(device), None)
            vector = features.summary
            if vector is None:
                # (B, C, H, W) -> (B, C)
                vector = features.maps[-1].mean((-2, -1))
            vectors[name].append(F.normalize(vector, dim=1))
    known = torch.cat(labels).to(device)
    return {name: (torch.cat(v), known) for name, v in vectors.items()}


def knn_accuracy(bank: Vectors, queries: Vectors, num_classes: int, k: int = 20) -> float:
    """Compute the top-1 accuracy of DINO's weighted vote, in per cent.

    Args:
        bank: Vectors (N, D) whose labels (N,) vote.
        queries: Vectors (M, D) and their labels (M,).
        num_classes: Number of classes.
        k: Number of neighbours. Defaults to 20.
    """
    right = [
        # All at once, similarities of ImageNet's queries would take 10 GB.
        knn_vote(vectors, *bank, num_classes, k).argmax(1) == labels
        for vectors, labels in zip(*(part.split(_QUERIES) for part in queries), strict=True)
    ]
    return 100 * torch.cat(right).double().mean().item()


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_analysis_arguments(parser, num_images=50_000)
    parser.add_argument('checkpoint', help='checkpoint of the run')
    parser.add_argument(
        '--train',
        required=True,
        metavar='FOLDER',
        help='images whose classes vote: a folder for each class',
    )
    parser.add_argument(
        '--test', required=True, metavar='FOLDER', help='images to classify, in the same folders'
    )
    parser.add_argument(
        '--size',
        type=positive,
        default=224,
        help='side of the central square that models see (default: 224)',
    )
    parser.add_argument('-k', type=positive, default=20, help='neighbours (default: 20)')
    parser.add_argument(
        '--num-workers', type=int, default=4, help='processes that load images (default: 4)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    with refusing():
        (bank, classes), (queries, others) = (
            labelled_images(folder, args.size, args.num_images, args.num_workers)
            for folder in (args.train, args.test)
        )
        places = (
            ClassNames(place, tuple(names), tuple(names))
            for place, names in ((args.train, classes), (args.test, others))
        )
        if text := difference(*places):
            refuse(f'{text}; both need the same folders.')
        distiller = load_distiller(cfg.get('model', {}), args.checkpoint, args.device)
        models = all_models(distiller, projected=True)
        known = embed(models, bank, args.device)
        asked = embed(models, queries, args.device)
    accuracy = {
        name: knn_accuracy(known[name], asked[name], len(classes), args.k) for name in models
    }
    rows = [[n, known[n][0].shape[1], accuracy[n]] for n in models]
    text = markdown_table(['model', 'channels', 'top-1 (%)'], rows)
    print(text)
    figure, axes = panels(1, 1, (5, 3.2))
    bars(axes[0, 0], {n: {'top-1': v} for n, v in accuracy.items()})
    axes[0, 0].set(ylabel=f'k-NN top-1 (%), k = {args.k}')
    numbers = dict(
        k=args.k,
        size=args.size,
        train_images=len(bank.dataset),
        test_images=len(queries.dataset),
        classes=len(classes),
        top1=accuracy,
    )
    for file in write_report(args.out, 'knn', numbers, text, figure):
        print(f'Written: {file}')


if __name__ == '__main__':
    main()
