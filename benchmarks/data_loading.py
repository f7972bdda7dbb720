"""Throughput of the loading pipeline over bare JPEG decoding.

Both take the same images in the same order, in the same number of
processes, in turns. Bare decoding is Pillow's full decode and nothing else;
the pipeline reads, decodes, crops, resizes, flips, packs, batches and hands
over. The goal is a ratio of at least 0.9.

"ratio" is of images a second and only means something on an idle machine;
"cpu_ratio" is of processor time an image, the main process included, and
holds up better on a busy one.

"load_image" is for labelled data: processor time of MMCV's LoadImageFromFile
over that of kpu_mm's, which checks images, on the same files in turns.

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
from typing import NamedTuple

import psutil
from mmcv import transforms as mmcv_transforms
from PIL import Image

from kpu_mm.datasets import FolderSource, LoadImageFromFile, MultiStreamLoader, UnlabeledImages

PHOTOS = ('astronaut', 'chelsea', 'coffee', 'hubble_deep_field', 'rocket')
LONGEST = 640


def write_photos(folder: Path) -> None:
    """Write scikit-image's photographs as JPEG, several crops of each."""
    from skimage import data

    for name in PHOTOS:
        photo = Image.fromarray(getattr(data, name)()[..., :3])
        for number in range(16):
            inset = 2 * number
            crop = photo.crop((inset, inset, photo.width - inset, photo.height - inset))
            scale = LONGEST / max(crop.size)
            crop = crop.resize(
                (round(crop.width * scale), round(crop.height * scale)), Image.Resampling.BICUBIC
            )
            crop.save(folder / f'{name}_{number:02d}.jpg', quality=90)


class Speed(NamedTuple):
    """Images a second and processor time an image."""

    per_second: float
    cpu_ms: float


def decode_files(paths: list[str]) -> float:
    """Decode whole images, throw them away, return processor seconds."""
    started = time.process_time()
    for path in paths:
        with Image.open(path) as image:
            image.load()
    return time.process_time() - started


def cpu_seconds() -> float:
    """Return processor seconds of this process and its workers so far."""
    process = psutil.Process()
    times = [p.cpu_times() for p in (process, *process.children())]
    return sum(t.user + t.system for t in times)


def bare_speed(paths: list[str], workers: int) -> Speed:
    """Return the speed of bare decoding, processes warm."""
    chunks = [paths[i::workers] for i in range(workers)]
    with multiprocessing.get_context('fork').Pool(workers) as pool:
        pool.map(decode_files, [chunk[:2] for chunk in chunks], chunksize=1)
        started = time.perf_counter()
        cpu = sum(pool.map(decode_files, chunks, chunksize=1))
        seconds = time.perf_counter() - started
    return Speed(len(paths) / seconds, cpu / len(paths) * 1e3)


def pipeline_speed(dataset: UnlabeledImages, batches: int, batch_size: int, workers: int) -> Speed:
    """Return the speed of the loader, workers warm."""
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
    cpu, started = cpu_seconds(), time.perf_counter()
    for _ in range(batches):
        next(iterator)
    cpu, seconds = cpu_seconds() - cpu, time.perf_counter() - started
    loader.close()
    images = batches * batch_size
    return Speed(images / seconds, cpu / images * 1e3)


def load_image_ratios(paths: list[str], rounds: int) -> list[float]:
    """Return MMCV's processor time over kpu_mm's, round by round."""

    def seconds(transform: mmcv_transforms.BaseTransform) -> float:
        started = time.process_time()
        for path in paths:
            transform(dict(img_path=path))
        return time.process_time() - started

    ours, theirs = LoadImageFromFile(), mmcv_transforms.LoadImageFromFile()
    seconds(ours)
    return [seconds(theirs) / seconds(ours) for _ in range(rounds)]


def measure(folder: Path, args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as cache:
        dataset = UnlabeledImages(
            {'type': 'kpu_mm.FolderSource', 'root': str(folder), 'cache_dir': cache},
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
            bare.append(bare_speed(paths, args.workers))
            pipeline.append(pipeline_speed(dataset, args.batches, args.batch_size, args.workers))
        load_image = load_image_ratios(paths[: len(source)], 3 * args.rounds)
    pairs = list(zip(pipeline, bare, strict=True))
    ratios = [p.per_second / b.per_second for p, b in pairs]
    cpu_ratios = [b.cpu_ms / p.cpu_ms for p, b in pairs]
    return {
        'images': len(source),
        'workers': args.workers,
        'bare': [[round(v, 2) for v in b] for b in bare],
        'pipeline': [[round(v, 2) for v in p] for p in pipeline],
        'ratios': [round(ratio, 3) for ratio in ratios],
        'ratio': round(statistics.median(ratios), 3),
        'cpu_ratios': [round(ratio, 3) for ratio in cpu_ratios],
        'cpu_ratio': round(statistics.median(cpu_ratios), 3),
        'load_image_ratios': [round(ratio, 3) for ratio in load_image],
        'load_image_ratio': round(statistics.median(load_image), 3),
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
