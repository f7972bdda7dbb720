"""Serve a page that compares a student with its original teachers.

For an uploaded image it shows features as colours, zero-shot classes, boxes
for a text, and the similarity of a text with each position. It runs on a CPU.
Only browsers on this machine can reach it, unless --host says otherwise.
"""

from __future__ import annotations

import argparse
import atexit
import os
import signal
from importlib.util import find_spec

from mmengine.config import Config

from kpu_mm.utils.command_line import SettingsAction, refuse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m projects.demo_page', description=__doc__)
    parser.add_argument(
        '--model',
        required=True,
        help='a folder that tools/export.py wrote, a checkpoint of a '
        'distillation run, or a zero-shot config that names one of these',
    )
    parser.add_argument(
        '--teacher-cfg',
        nargs='+',
        action=SettingsAction,
        default={},
        help='where the teachers are, if they moved since the run: '
        'clip.model=local-dir:/data/clip grounding_dino.source=/data/gd',
    )
    parser.add_argument('--device', help='such as cpu or cuda:0')
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen at; 0.0.0.0 lets the whole network in, '
        'without a password (default: 127.0.0.1)',
    )
    parser.add_argument('--port', type=int, default=7860)
    parser.add_argument('--max-megabytes', type=float, default=20, help='of an upload')
    parser.add_argument('--max-megapixels', type=float, default=25, help='of an upload')
    args = parser.parse_args()
    for name in ('max_megabytes', 'max_megapixels'):
        if getattr(args, name) <= 0:
            parser.error(f'--{name.replace("_", "-")} must be positive.')
    return args


def main() -> None:
    args = parse_args()
    if find_spec('gradio') is None:
        refuse(
            'the page needs Gradio; install it with '
            "`pip install 'kpu_mm[page]'` or `pip install -r "
            'requirements/page.txt`.'
        )
    # These imports take seconds, and a wrong argument is reported before.
    from .answers import Answers
    from .comparison import Comparison
    from .inferencer_pool import InferencerPool, find_source
    from .page import build_page, check_address, serve
    from .uploads import UploadFolder

    # Gradio checks its own server with a request, which must not go through
    # a proxy.
    around = os.environ.get('no_proxy', os.environ.get('NO_PROXY', ''))
    os.environ['no_proxy'] = f'{around},localhost,{args.host}'.lstrip(',')
    teacher_cfgs = Config()
    teacher_cfgs.merge_from_dict(args.teacher_cfg)
    uploads = UploadFolder(int(args.max_megabytes * 2**20))
    atexit.register(uploads.remove)
    try:
        check_address(args.host, args.port)
        source = find_source(args.model)
        pool = InferencerPool(source, args.device, teacher_cfgs.to_dict())
        print('Loading the student and its teachers ...', flush=True)
        pool.load()
        max_pixels = int(args.max_megapixels * 1e6)
        page = build_page(Answers(Comparison(pool), max_pixels, uploads))
        address = serve(page, uploads, args.host, args.port)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        refuse(str(error))
    print(f'The page is at {address}; Ctrl-C ends it.', flush=True)
    # SIGTERM ends the program as Ctrl-C does, so that exit handlers delete
    # the uploads.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    page.block_thread()


if __name__ == '__main__':
    main()
