"""What ``import kpu_mm`` does first: check versions, prepare MMEngine.

Versions are read from the metadata of the installed distributions, so that
this costs milliseconds and no library is imported to be turned down.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.version import Version

OPENCV = (
    'opencv-python-headless',
    'opencv-python',
    'opencv-contrib-python-headless',
    'opencv-contrib-python',
)
# Module, oldest version that works, what to install where there is none, and
# the names that it may be installed by.
REQUIREMENTS = (
    ('torch', '2.6', "'torch>=2.6' torchvision", ('torch',)),
    # onedl-mmpretrain does not work with transformers 5.
    ('transformers', '4.56', "'transformers>=4.56,<5'", ('transformers',)),
    # requirements/mminstall.txt says why this one
    ('cv2', '4.0', 'opencv-python-headless==4.12.0.88', OPENCV),
    # The onedl distributions continue the originals. What they need is required by kpu_mm;
    # their own lists would put them over an original, and another OpenCV over the one there.
    (
        'mmengine',
        '0.10.0',
        '--no-deps onedl-mmengine==0.10.12',
        ('onedl-mmengine', 'mmengine', 'mmengine-lite'),
    ),
    ('mmcv', '2.0.0', '--no-deps onedl-mmcv==2.3.6', ('onedl-mmcv', 'mmcv', 'mmcv-lite')),
)


def installed(*names: str) -> tuple[str, Version] | None:
    """Find which of some distributions is installed.

    Args:
        *names: Distributions that give the same module.

    Returns:
        Name and version of the first one found, None if there is none.
    """
    for name in names:
        with suppress(PackageNotFoundError):
            return name, Version(version(name))
    return None


def _release(found: Version) -> Version:
    # 2.6.0rc1 and 2.6.0+cu128 -> 2.6.0: both have what 2.6.0 has
    return Version(found.base_version)


def check_versions() -> None:
    """Check every library that ``import kpu_mm`` needs.

    Raises:
        ImportError: A library is missing or too old; one sentence with the
            command that cures it.
    """
    for module, minimum, install, distributions in REQUIREMENTS:
        found = installed(*distributions)
        # A source tree on PYTHONPATH has no metadata; it is left to the user.
        if found is None and find_spec(module) is None:
            raise ImportError(
                f'kpu_mm needs {module} >= {minimum}, and it is not '
                f'installed: run `pip install {install}`.'
            )
        if found is not None and _release(found[1]) < Version(minimum):
            name, present = found
            raise ImportError(
                f'kpu_mm needs {module} >= {minimum}, but {name} {present} is '
                f"installed: run `pip install --upgrade '{name}>={minimum}'`."
            )
    warn_of_known_faults()


def warn_of_known_faults() -> None:
    """Warn of installed releases that are known to compute wrongly."""
    mmdet = installed('onedl-mmdetection')
    if mmdet and Version('3.4.6') <= _release(mmdet[1]) <= Version('3.5.1'):
        warnings.warn(
            f'onedl-mmdetection {mmdet[1]} builds the DINO decoder in a shape that no released '
            'checkpoint fits, and its GroundingDINO fails in every forward: run `pip install '
            '--no-deps onedl-mmdetection==3.4.5`.',
            stacklevel=3,
        )
    transformers = installed('transformers')
    mmpretrain = installed('onedl-mmpretrain', 'mmpretrain')
    if transformers and mmpretrain and transformers[1].major >= 5:
        warnings.warn(
            f'{mmpretrain[0]} {mmpretrain[1]}, and mmdet with it, does not '
            f'work with transformers {transformers[1]}: run '
            "`pip install 'transformers>=4.56,<5'`.",
            stacklevel=3,
        )


def after_import(name: str, run: Callable[[], None]) -> None:
    """Run something once a module has been imported, now or later.

    Libraries that take seconds to import are prepared without importing them.

    Args:
        name: Full name of the module.
        run: What to run.
    """
    if name in sys.modules:
        run()
    else:
        sys.meta_path.insert(0, _Finder(name, run))


class _Finder(MetaPathFinder):
    """Finds one module once, and runs something when that has run."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.name = name
        self.run = run

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the one module; others are left to others."""
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        loader: Any = spec and spec.loader
        execute = loader.exec_module

        def execute_and_run(module: ModuleType) -> None:
            execute(module)
            self.run()

        loader.exec_module = execute_and_run
        return spec


def register_transformers() -> None:
    """Make exported students known to the Auto classes of transformers."""
    auto = 'transformers.models.auto'

    def config() -> None:
        from transformers import AutoConfig

        from kpu_mm.hf_config import KPUConfig

        AutoConfig.register(KPUConfig.model_type, KPUConfig, exist_ok=True)

    def models() -> None:
        # it registers its models, at once or when its own import ends
        import kpu_mm.hf_models  # noqa: F401

    def image_processor() -> None:
        from transformers import AutoImageProcessor, BitImageProcessor, BitImageProcessorFast

        from kpu_mm.hf_config import KPUConfig

        # One by one: given both, transformers 4 asks the fast one for the slow
        # one's name, which it does not have.
        for kind in (
            dict(slow_image_processor_class=BitImageProcessor),
            dict(fast_image_processor_class=BitImageProcessorFast),
        ):
            AutoImageProcessor.register(KPUConfig, **kind, exist_ok=True)

    after_import(f'{auto}.configuration_auto', config)
    after_import(f'{auto}.modeling_auto', models)
    after_import(f'{auto}.image_processing_auto', image_processor)


def register_config_scope() -> None:
    """Make ``kpu_mm::...`` a base that MMEngine's configs know.

    MMEngine looks scopes up in a fixed list of distributions.
    """
    # Imported late, as MMEngine may be missing before the check.
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE['kpu_mm'] = 'kpu_mm'
    # The list has the original's distribution (mmsegmentation). Any other
    # is found by the name of its module.
    if not installed('mmsegmentation') and installed('onedl-mmsegmentation'):
        MODULE2PACKAGE['mmseg'] = 'mmseg'


def register_plain_yaml() -> None:
    """Let MMEngine read YAML as data.

    Its own loader builds any Python object that a tag such as
    ``!!python/object/apply`` names.
    """
    import yaml
    from mmengine.fileio import register_handler
    from mmengine.fileio.handlers import YamlHandler

    class PlainYaml(YamlHandler):
        def load_from_fileobj(self, file: Any, **_: Any) -> Any:
            try:
                return yaml.safe_load(file)
            except yaml.constructor.ConstructorError as error:
                raise ValueError(
                    'a YAML config holds plain values, no Python objects '
                    f'({error.problem}); write it as .py instead.'
                ) from error

    register_handler(['yaml', 'yml'])(PlainYaml)


def shipped(path: str) -> Path:
    """Find a file that comes with the package, such as ``tools/train.py``.

    Args:
        path: Its path in the repository.

    Returns:
        The copy in the installed package, or the file of a clone.

    Raises:
        FileNotFoundError: There is no such file.
    """
    package = Path(__file__).parents[1]
    for folder in (package / '.mim', package.parent):
        if (folder / path).exists():
            return folder / path
    raise FileNotFoundError(f'kpu_mm was installed without {path!r}; install it again.')


def base(config: str) -> str:
    """Name a config of kpu_mm so that it can be a ``_base_`` anywhere.

    MMEngine reads ``_base_`` before ``custom_imports``, so in a tool that has
    not imported kpu_mm the plain text ``'kpu_mm::distill/kpu_vitb.py'`` is
    unknown. It evaluates the right-hand side, however, and this works in
    every tool::

        _base_ = __import__('kpu_mm').base('distill/kpu_vitb.py')

    Args:
        config: The path of a config below ``configs/``.

    Returns:
        The path with the scope in front, ``kpu_mm::distill/kpu_vitb.py``.

    Raises:
        FileNotFoundError: There is no such config.
    """
    configs = Path(__file__).parents[1] / '.mim' / 'configs'
    if not (configs / config).is_file():
        raise FileNotFoundError(
            f'kpu_mm has no config {config!r} in {configs}; in a clone run '
            '`pip install --no-deps -e .` once, which links the configs there.'
        )
    return f'kpu_mm::{config}'
