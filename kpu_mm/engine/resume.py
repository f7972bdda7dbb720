"""What holds when a run resumes: the settings of its checkpoint or of its config."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict

from kpu_mm.models.backbones.base_backbone import check_choice
from kpu_mm.models.student import literal

SOURCES = ('checkpoint', 'config')
# What a run trains with. Paths, logging and names are left out, and so are
# variables of a config, whose values stand where they are used.
_KEYS = (
    *('model', 'data_preprocessor', 'train_dataloader', 'val_dataloader', 'val_evaluator'),
    *('train_cfg', 'val_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr'),
    *('default_hooks', 'custom_hooks', 'randomness', 'runner_type'),
    *('model_wrapper_cfg', 'compile', 'activation_checkpointing', 'efficient_conv_bn_eval'),
)
# What MMEngine restores in any case, the second of them if it was saved, and
# what it restores of rate and schedule.
_SEED = re.compile(r'randomness(\.seed)?$')
_SCALE = re.compile(r'optim_wrapper\.(\w+\.)?loss_scale(\.|$)')
_SCHEDULE = re.compile(
    r'(param_scheduler|auto_scale_lr|optim_wrapper\.(\w+\.)?(optimizer|paramwise_cfg|constructor))'
    r'(\.|$)'
)
_ADVISED = re.compile(rf'{_SCHEDULE.pattern}|train_cfg\.max_')
_OPTIMIZER = re.compile(r'optim_wrapper\.(\w+\.)?optimizer\.type$')
_UNSET = object()
_LONGEST = 80  # characters of a value in a message


class ComparedResume:
    """Mixin of runners: what differs on resume is named, and one option decides.

    A resumed run continues exactly, with the rate and the schedules of its
    checkpoint. With ``resume_schedule='config'`` in the config it continues
    with those of the config, from the same position and with the same
    moments. The log names each setting of the config that is not the
    checkpoint's, and which of the two holds.
    """

    # What MMEngine's runner brings.
    cfg: Config
    logger: MMLogger

    _resuming = False

    def train(self) -> Any:
        """Train.

        Raises:
            ValueError: If ``resume_schedule`` is no source of a schedule.
        """
        check_choice('resume_schedule', self.cfg.get('resume_schedule', SOURCES[0]), SOURCES)
        return super().train()  # type: ignore[misc]

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call hooks; compare configs when a checkpoint is loaded to resume.

        Args:
            fn_name: The hooks' method.
            **kwargs: Its arguments.
        """
        super().call_hook(fn_name, **kwargs)  # type: ignore[misc]
        if self._resuming and fn_name == 'after_load_checkpoint':
            self._compare(kwargs['checkpoint'].get('meta', {}))

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        **kwargs: Any,
    ) -> None:
        """Continue from a checkpoint, by its schedule or by the config's.

        Args:
            filename: Path or URL.
            resume_optimizer: Whether to take over the optimizer's state.
                Defaults to True.
            resume_param_scheduler: Whether to take over that of the
                schedulers; never for ``resume_schedule='config'``. Defaults
                to True.
            **kwargs: As ``Runner.resume`` takes them.

        Raises:
            ValueError: If the checkpoint's states do not fit the config.
        """
        follows_config = self.cfg.get('resume_schedule') == 'config'
        self._resuming = True
        try:
            with schedule_of_config(self) if follows_config else nullcontext():
                super().resume(  # type: ignore[misc]
                    filename,
                    resume_optimizer,
                    resume_param_scheduler and not follows_config,
                    **kwargs,
                )
        except ValueError as error:
            if 'parameter group' not in str(error):
                raise
            raise ValueError(
                f'the parameter groups of the optimizer are not those of {filename}: keep '
                'paramwise_cfg, the constructor and what trains (the log names what differs), or '
                'start from the weights alone: load_from=CHECKPOINT without --resume.'
            ) from error
        finally:
            self._resuming = False

    def _compare(self, meta: dict[str, Any]) -> None:
        # MMEngine would run this text as a program; its runners write 'cfg'.
        meta.pop('config', None)
        saved, own = meta.get('cfg'), self.cfg.pretty_text
        if not saved or not own:  # built without a config
            return
        if lines := compare_configs(own, saved, self.cfg.get('resume_schedule', SOURCES[0])):
            self.logger.warning(
                '\n    '.join(["Settings that are not those of the checkpoint's config:", *lines])
            )


def compare_configs(config: str, saved: str, source: str) -> list[str]:
    """Tell which settings differ from those of a checkpoint, and which hold.

    Args:
        config: The text of the run's config, as MMEngine writes it.
        saved: The text of the config in the checkpoint.
        source: Whose rate and schedule hold, 'checkpoint' or 'config'.

    Returns:
        A sentence for each setting.

    Raises:
        ValueError: If the states of the optimizer, or of the schedulers, do
            not fit the config.
    """
    ours, theirs = _read(config), _read(saved)
    if not theirs:
        return ['the config in the checkpoint cannot be read and is not compared']
    lines = []
    for key, own, other in _compare('', ours, theirs):
        if _OPTIMIZER.match(key):
            raise ValueError(
                f'{key} is {_show(own)} in the config and {_show(other)} in the checkpoint, whose '
                'moments fit no other optimizer; keep the type, or start from the weights alone: '
                'load_from=CHECKPOINT without --resume.'
            )
        restored = _SEED.match(key) or (_SCALE.match(key) and other is not _UNSET)
        if source == 'checkpoint':
            restored = restored or _SCHEDULE.match(key)
        holder = 'checkpoint' if restored else 'config'
        lines.append(f"{key}: config {_show(own)}, checkpoint {_show(other)}; the {holder}'s holds")
    if source == 'checkpoint' and any(map(_ADVISED.match, lines)):
        lines.append(
            "rate and schedules are the checkpoint's, to its last iteration; to follow the "
            "config's from here on, add --cfg-options resume_schedule=config"
        )
    kinds = [_kinds(settings.get('param_scheduler')) for settings in (ours, theirs)]
    if source == 'checkpoint' and kinds[0] != kinds[1]:
        raise ValueError(
            f'param_scheduler has the types {kinds[0]} in the config and {kinds[1]} in the '
            'checkpoint, whose states fit no others; keep them, or follow the config with '
            '--cfg-options resume_schedule=config.'
        )
    return lines


def _read(text: str) -> dict[str, Any]:
    """What a run trains with, by its keys in a config.

    The text is parsed, not executed: a checkpoint may be anybody's.
    """
    values: dict[str, Any] = {}
    try:
        lines = ast.parse(text).body
    except (SyntaxError, ValueError):  # null bytes
        lines = []
    for line in lines:
        match line:
            case ast.Assign([ast.Name(key)], value) if key in _KEYS:
                try:
                    values[key] = literal(value)
                # an object, as a program may put into a config
                except (TypeError, ValueError):
                    values[key] = ast.unparse(value)
    # one scheduler is a list of one
    if isinstance(scheduler := values.get('param_scheduler'), dict) and 'type' in scheduler:
        values['param_scheduler'] = [scheduler]
    return values


def _compare(key: str, own: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each part that differs: its key, and both values."""
    if isinstance(own, dict) and isinstance(other, dict):
        for name in {**other, **own}:
            part = f'{key}.{name}' if key else name
            yield from _compare(part, own.get(name, _UNSET), other.get(name, _UNSET))
    elif isinstance(own, list | tuple) and isinstance(other, list | tuple):
        # Lists of numbers and names are shown whole.
        if len(own) == len(other) and any(isinstance(part, dict) for part in own):
            for i, parts in enumerate(zip(own, other, strict=True)):
                yield from _compare(f'{key}.{i}', *parts)
        elif list(own) != list(other):
            yield key, own, other
    # A setting of None is as good as none.
    elif own != other and not (own in (None, _UNSET) and other in (None, _UNSET)):
        yield key, own, other


def _show(value: Any) -> str:
    text = 'unset' if value is _UNSET else repr(value)
    return text if len(text) <= _LONGEST else f'{text[: _LONGEST - 3]}...'


def _kinds(schedulers: Any) -> Any:
    """The types of schedulers, for each optimizer if there are several."""
    if isinstance(schedulers, str):  # an object that is no part of a config file
        return schedulers
    if isinstance(schedulers, dict):
        return {name: _kinds(v if isinstance(v, list) else [v]) for name, v in schedulers.items()}
    return [str(s.get('type')).rpartition('.')[2] for s in schedulers or []]


@contextmanager
def schedule_of_config(runner: Any) -> Iterator[None]:
    """Let rate and schedule of the config hold while a checkpoint is resumed.

    Each parameter group keeps the settings that it was built with: rate,
    multipliers, layer decay, weight decay. Then the schedulers, warm-up
    included, take as many steps as the checkpoint has taken: MMEngine's
    schedulers compute a value from the one before. Moments are the
    checkpoint's. A scheduler that follows metrics starts without any.

    Args:
        runner: The runner, whose optimizer and schedulers are built, and
            which resumes weights, moments and position inside, but not the
            schedulers.
    """
    built = [_settings(wrapper) for wrapper in _wrappers(runner)]
    yield
    for wrapper, groups in zip(_wrappers(runner), built, strict=True):
        for group, settings in zip(wrapper.param_groups, groups, strict=True):
            group.update(settings)
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):  # of several optimizers
        schedulers = [scheduler for part in schedulers.values() for scheduler in part]
    # The epochs of an iteration-based loop are not counted.
    length = runner.iter // runner.epoch if runner.epoch else 0
    with warnings.catch_warnings():
        # No step of the optimizer lies between these.
        warnings.simplefilter('ignore', UserWarning)
        for iteration in range(1, runner.iter + 1):
            ends = length and iteration % length == 0
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
            for scheduler in schedulers if ends else ():
                if scheduler.by_epoch:
                    scheduler.step()


def _wrappers(runner: Any) -> list[OptimWrapper]:
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def _settings(wrapper: OptimWrapper) -> list[Mapping[str, Any]]:
    """What a config sets of each parameter group; some optimizers keep a state there too."""
    arguments = {'lr', *inspect.signature(type(wrapper.optimizer)).parameters} - {'params'}
    return [
        {k: v for k, v in group.items() if k in arguments or k.startswith('initial_')}
        # with the group that stands for the rate without multipliers
        for group in wrapper.param_groups
    ]
