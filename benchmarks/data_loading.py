"""Throughput of the loading pipeline over bare JPEG decoding.

Both take the same images in the same order, in the same number of
processes, in turns. Bare decoding is Pillow's full decode and nothing else;
the pipeline reads, decodes, crops, resizes, flips, packs, batches and hands
over. The goal is a ratio of at least 0.9.

    python benchmarks/data_loading.py [--folder IMAGES] [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image

from kpu_mm.datasets import FolderSource, MultiStreamLoader, UnlabeledImages

PHOTOS = ('astronaut', 'chelsea', 'coffee', 'hubble_deep_field', 'rocket')
LONGEST = 640


def write_photos(folder: Path) -> None:
    """Write scikit-image's photographs as JPEG, several crops of each."""
    from skimage import data

    for name in PHOTOS:
        photo = Image.fromarray(getattr(data, name)()[..., :3])
        for number in range(16):
            inset = 2 * number
            crop = photo.crop(
                (inset, inset, photo.width - inset, photo.height - inset)
            )
            scale = LONGEST / max(crop.size)
            crop = crop.resize(
                (round(crop.width * scale), round(crop.height * scale)),
                Image.Resampling.BICUBIC,
            )
            crop.save(folder / f'{name}_{number:02d}.jpg', quality=90)


def decode_files(paths: list[str]) -> None:
    """Decode whole images and throw them away."""
    for path in paths:
        with Image.open(path) as image:
            image.load()


def bare_rate(paths: list[str], workers: int) -> float:
    """Return images a second of bare decoding, processes warm."""
    chunks = [paths[i::workers] for i in range(workers)]
    with multiprocessing.get_context('fork').Pool(workers) as pool:
        pool.map(decode_files, [chunk[:2] for chunk in chunks], chunksize=1)
        started = time.perf_counter()
        pool.map(decode_files, chunks, chunksize=1)
        return len(paths) / (time.perf_counter() - started)


def pipeline_rate(
    dataset: UnlabeledImages, batches: int, batch_size: int, workers: int
) -> float:
    """Return images a second of the loader, workers warm."""
    loader = MultiStreamLoader(
        {
            'clip': {
                'dataset': dataset,
                'batch_size': batch_size,
                'num_workers': workers,
                'pin_memory': False,
            }
        }
    )
    # Batches are ready before they are asked for. So many are asked for
    # first that the clock starts with every queue as full as it ends.
    warm_up = 2 * workers * 2
    iterator = iter(loader)
    for _ in range(warm_up):
        next(iterator)
    started = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    seconds = time.perf_counter() - started
    loader.close()
    return batches * batch_size / seconds


def measure(folder: Path, args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as cache:
        dataset = UnlabeledImages(
            {
                'type': 'kpu_mm.FolderSource',
                'root': str(folder),
                'cache_dir': cache,
            },
            [
                {'type': 'kpu_mm.DecodeRandomResizedCrop', 'size': args.size},
                {'type': 'mmcv.RandomFlip', 'prob': 0.5},
                {'type': 'kpu_mm.PackImage'},
            ],
        )
        source = FolderSource(str(folder), cache_dir=cache)
        count = args.batches * args.batch_size
        paths = [source.name(i % len(source)) for i in range(count)]
        bare, pipeline = [], []
        for _ in range(args.rounds):
            bare.append(bare_rate(paths, args.workers))
            pipeline.append(
                pipeline_rate(
                    dataset, args.batches, args.batch_size, args.workers
                )
            )
    ratios = [p / b for p, b in zip(pipeline, bare, strict=True)]
    return {
        'images': len(source),
        'workers': args.workers,
        'bare_per_second': round(statistics.median(bare), 1),
        'pipeline_per_second': round(statistics.median(pipeline), 1),
        'ratios': [round(ratio, 3) for ratio in ratios],
        'ratio': round(statistics.median(ratios), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--folder', type=Path, help='images to read')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--batches', type=int, default=40)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--size', type=int, default=224)
    args = parser.parse_args()
    if args.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            write_photos(Path(folder))
            result = measure(Path(folder), args)
    else:
        result = measure(args.folder, args)
    print(json.dumps(result, indent=2))


if __name__ == '__main__':
    main()
