"""Package kpu_mm with what else it ships, the OpenMMLab way (``.mim``)."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM = ('configs', 'tools', 'projects', 'requirements', 'model-index.yml')


def read_version() -> str:
    """Read the version without importing the package."""
    text = (ROOT / 'kpu_mm' / 'version.py').read_text(encoding='utf-8')
    match = re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE)
    if match is None:
        raise RuntimeError('kpu_mm/version.py holds no __version__.')
    return match.group(1)


def read_requirements(name: str) -> list[str]:
    """Read the lines of a requirement file that are requirements."""
    text = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8')
    lines = (line.split('#')[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


class BuildWithMim(build_py):
    """Put configs, tools, projects and the model index into ``kpu_mm/.mim``.

    Wheels get copies. An editable install gets links, so that an edited
    config is at once what ``kpu_mm::`` finds.
    """

    def run(self) -> None:
        """Build the package, then its ``.mim``."""
        super().run()
        if self.editable_mode:
            target = ROOT / 'kpu_mm' / '.mim'
        else:
            target = Path(self.build_lib) / 'kpu_mm' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in MIM:
            if self.editable_mode:
                link = os.path.relpath(ROOT / name, target)
                (target / name).symlink_to(link)
            elif (ROOT / name).is_dir():
                skip = shutil.ignore_patterns('__pycache__', '*.py[co]')
                shutil.copytree(ROOT / name, target / name, ignore=skip)
            else:
                shutil.copy2(ROOT / name, target / name)


EXTRAS = {
    name: read_requirements(name) for name in ('demo', 'downstream', 'export', 'page', 'tests')
}
EXTRAS['all'] = sorted({line for lines in EXTRAS.values() for line in lines})
# not in 'all': released weights, which only projects/real_model reads
EXTRAS['real'] = read_requirements('real')

setup(
    name='kpu_mm',
    version=read_version(),
    description=('Distil several vision foundation models into one backbone, within OpenMMLab'),
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='kpu_mm contributors',
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    keywords='computer vision, knowledge distillation, foundation models',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=find_packages(include=['kpu_mm', 'kpu_mm.*']),
    python_requires='>=3.10,<3.13',
    # No mm* distribution: the originals and their continuation share module
    # names, and pip would put one over the other.
    install_requires=read_requirements('runtime'),
    extras_require=EXTRAS,
    cmdclass={'build_py': BuildWithMim},
    entry_points=dict(console_scripts=['kpu-mm = kpu_mm.cli:main']),
    zip_safe=False,
)
