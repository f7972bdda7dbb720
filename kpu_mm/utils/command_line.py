"""Arguments, configs and errors of the tools."""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .doctor import require_toolbox


def refuse(message: str) -> NoReturn:
    """Leave the program for something the user has to put right.

    Args:
        message: One sentence.

    Raises:
        SystemExit: With code 2, as for a wrong argument.
    """
    sys.stderr.write(f'{Path(sys.argv[0]).name}: error: {message}\n')
    raise SystemExit(2)


def tool_parser(doc: str | None) -> argparse.ArgumentParser:
    """The parser of a tool, whose help is the text at the top of its file.

    Args:
        doc: The tool's ``__doc__``, with an example as a line of its own.
    """
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


class SettingsAction(DictAction):
    """MMEngine's action for ``KEY=VALUE``, with a sentence for anything else."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add settings to the arguments.

        Args:
            parser: The parser.
            namespace: Its arguments so far.
            values: What the user wrote.
            option_string: The name of the option. Defaults to None.

        Raises:
            ArgumentError: If there is no ``=`` or a bracket is not closed.
        """
        for text in values:
            if '=' not in text:
                raise argparse.ArgumentError(self, f'{text!r} is no KEY=VALUE')
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:
            raise argparse.ArgumentError(self, str(error)) from None


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``config`` and ``--cfg-options`` to the arguments of a tool.

    Args:
        parser: The parser of the tool.
    """
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=SettingsAction,
        help='change settings of the config: key=value, nested.key=value, '
        'key="[a,b]" (quoted, without blanks)',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what training and testing have in common to a tool's arguments.

    Args:
        parser: The parser of the tool.
    """
    add_config_arguments(parser)
    parser.add_argument(
        '--work-dir',
        help='directory of logs and checkpoints (default: that of the config, '
        'else work_dirs/<name of the config>)',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started this process among others',
    )
    # torchrun sets LOCAL_RANK itself, older launchers pass it.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def positive(text: str) -> int:
    """Read a whole number from 1 on, as the ``type`` of an argument.

    Args:
        text: What the user wrote.

    Raises:
        ArgumentTypeError: If it is something else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number from 1 on')
    return int(text)


def device(text: str) -> torch.device:
    """Read a device, as the ``type`` of an argument.

    Args:
        text: What the user wrote.

    Raises:
        ArgumentTypeError: If torch knows no such device.
    """
    try:
        return torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no device such as 'cpu' or 'cuda:0'"
        ) from None


def add_analysis_arguments(parser: argparse.ArgumentParser, num_images: int) -> None:
    """Add the arguments of all tools that look at a run's features.

    Args:
        parser: The parser of the tool.
        num_images: Default of ``--num-images``.
    """
    add_config_arguments(parser)
    parser.add_argument(
        '--num-images',
        type=positive,
        default=num_images,
        help=f'how many images to look at (default: {num_images})',
    )
    parser.add_argument(
        '--device',
        type=device,
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help="such as 'cuda:1' (default: a GPU if there is one)",
    )
    add_out_argument(parser)


def add_out_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--out``, the folder of an analysis.

    Args:
        parser: The parser of the tool.
    """
    parser.add_argument(
        '--out',
        type=Path,
        default='work_dirs/analysis',
        help='folder for numbers (.json), table (.md) and picture (.png) '
        '(default: work_dirs/analysis)',
    )


def add_stream_arguments(parser: argparse.ArgumentParser, whole_images: bool = False) -> None:
    """Add ``--seed``, and ``--images`` for tools that take whole images.

    Args:
        parser: The parser of the tool.
        whole_images: Whether the tool takes whole images. Defaults to False,
            it takes those of each teacher's streams.
    """
    parser.add_argument(
        '--seed', type=int, default=0, help='which images, and which random transforms (default: 0)'
    )
    if whole_images:
        parser.add_argument(
            '--images',
            metavar='FOLDER',
            help="folder of images (default: those of the config's first stream)",
        )


@contextmanager
def refusing() -> Iterator[None]:
    """Turn errors of files, values and missing packages into :func:`refuse`'s sentence."""
    try:
        yield
    # FloatingPointError is a loss that is not finite.
    except (FloatingPointError, ImportError, OSError, RuntimeError, ValueError) as error:
        refuse(str(error))


def read_run_config(args: argparse.Namespace) -> Config:
    """Read the config of a run, with its launcher and work directory.

    Args:
        args: What :func:`add_run_arguments` parsed.
    """
    # MMEngine's model wrappers read it, and MPI sets its own alone.
    own = os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', str(args.local_rank))
    os.environ.setdefault('LOCAL_RANK', own)
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    return cfg


def read_config(path: str, options: dict[str, Any] | None = None) -> Config:
    """Read a config file and the changes given on the command line.

    Args:
        path: The file.
        options: ``--cfg-options``. Defaults to None, no changes.

    Raises:
        SystemExit: There is no such file, it cannot be understood, or the
            toolbox of its ``default_scope`` is not installed.
    """
    if not Path(path).is_file():
        refuse(f'there is no config file {path}.')
    try:
        cfg = Config.fromfile(path)
    # A config is a program: whatever it raises is a fault in the file.
    except Exception as error:
        refuse(f'cannot read the config {path}: {_sentence(error)}')
    try:
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError, IndexError) as error:
        refuse(f'--cfg-options do not fit {path}: {_sentence(error)}')
    with refusing():
        require_toolbox(cfg.get('default_scope'), path)
    return cfg


def _sentence(error: BaseException) -> str:
    # mmengine wraps the error that matters and appends sys.path
    while isinstance(error, ImportError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ImportError) and error.__context__ is not None:
        error = error.__context__
    lines = str(error).strip().splitlines() or ['no message']
    return f'{type(error).__name__}: {lines[0]}'


def use_gloo_without_gpu(cfg: Config) -> None:
    """Join the process group here if there is no GPU to do it with.

    MMEngine's launcher calls ``torch.cuda.set_device``; it leaves a group
    that exists alone.

    Args:
        cfg: The config of the run, with its launcher.
    """
    if cfg.launcher == 'pytorch' and not torch.cuda.is_available():
        seconds = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
        timeout = timedelta(seconds=seconds) if seconds else None
        torch.distributed.init_process_group('gloo', timeout=timeout)


def end_together() -> None:
    """End the processes of a distributed run once all ranks are done.

    Exit handlers run, and the process ends. Outside of distributed runs this
    does nothing.
    """
    if torch.distributed.is_initialized():
        # A rank that ends while another still uses the group can make that
        # one fail after all its work.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        # Gloo's threads outlive the group, as DDP keeps it; one that lets go
        # of a tensor while Python is torn down aborts its process. So that
        # is left out, and only threads and exit handlers are waited for.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for.

    Args:
        cfg: The config; ``runner_type`` names a runner other than MMEngine's.
    """
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)
