"""Which share of the loss each teacher and each term has during a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.config import Config

from kpu_mm.models.teacher_link import TERMS

Row = dict[str, float]


class LossShares(NamedTuple):
    """Shares over the logged iterations of a run.

    Args:
        steps: Iterations, (N,).
        teachers: By teacher, its share of the weighted loss, (N,); they sum
            to 1.
        terms: By term, likewise.
        weights: By teacher, the balancer's weight, (N,); empty for a run
            that does not log any.
        losses: By 'term/teacher' or 'term/teacher/stream', the loss as
            logged, (N,).
    """

    steps: np.ndarray
    teachers: dict[str, np.ndarray]
    terms: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    losses: dict[str, np.ndarray]


def find_logs(run: str | Path) -> list[Path]:
    """The logs of a run, oldest first; a resumed run has several.

    Args:
        run: A work directory, or a ``scalars.json``.

    Raises:
        FileNotFoundError: If there is none.
    """
    run = Path(run)
    logs = [run] if run.is_file() else sorted(run.glob('**/scalars.json'))
    if not logs:
        raise FileNotFoundError(
            f"'{run}' holds no scalars.json; pass the work directory of a "
            'run that MMEngine logged (LocalVisBackend).'
        )
    return logs


def read_rows(logs: Sequence[Path]) -> list[Row]:
    """Logged values by iteration; what was logged again counts once.

    Args:
        logs: Oldest first.

    Raises:
        ValueError: If a line is not JSON.
    """
    rows: dict[int, Row] = {}
    for path in logs:
        lines = path.read_text(encoding='utf-8').splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                # a run that was killed may leave half a line
                if number == len(lines):
                    break
                raise ValueError(
                    f'{path}, line {number}, is not JSON: {error}.'
                ) from error
            # a validation logs at the step that it follows
            rows.setdefault(row.get('step', 0), {}).update(row)
    return [rows[step] for step in sorted(rows)]


def read_terms(log: Path) -> dict[str, float]:
    """Weights of the loss terms, from the config beside a log.

    Args:
        log: The ``scalars.json``.

    Raises:
        FileNotFoundError: If there is no config.
    """
    path = log.with_name('config.py')
    if not path.is_file():
        raise FileNotFoundError(
            f"'{path}' does not exist; MMEngine writes it beside scalars.json "
            'and the weights of the loss terms are read from it.'
        )
    terms = Config.fromfile(path).get('model', {}).get('terms')
    return dict(terms or dict.fromkeys(TERMS, 1.0))


def loss_shares(
    rows: Sequence[Row], terms: Mapping[str, float], window: int = 1
) -> LossShares:
    """Shares of sum_t w_t sum_k terms[k] L_k,t.

    L_k,t is logged as 'k/t', such as 's2t/clip', or for a teacher of several
    streams as 'k/t/stream', of which the mean counts; the balancer's weight
    w_t as 'weight/t'. A run that logs no weights gives all teachers the same.
    Iterations at which a value is missing are left out.

    Args:
        rows: Logged values.
        terms: Weights of the terms.
        window: Losses and weights are means over the last so many rows.
            Defaults to 1.

    Raises:
        ValueError: If no iteration has the losses.
    """
    logged = dict.fromkeys(key for row in rows for key in row)
    keys = [k for k in logged if '/' in k and k.split('/')[0] in terms]
    losses: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        term, name = key.split('/')[:2]
        losses.setdefault((term, name), []).append(key)
    names = list(dict.fromkeys(name for _, name in losses))
    weighed = [key for name in names if (key := f'weight/{name}') in logged]
    whole = [row for row in rows if all(k in row for k in keys + weighed)]
    if not keys or not whole:
        raise ValueError(
            'the log has no iteration with losses such as s2t/NAME; pass a '
            'distillation run.'
        )
    values = {
        key: running_mean(np.array([row[key] for row in whole]), window)
        for key in keys + weighed
    }
    parts = {
        (term, name): terms[term]
        * np.mean([values[key] for key in found], 0)
        * values.get(f'weight/{name}', 1.0)
        for (term, name), found in losses.items()
    }
    total = np.sum(list(parts.values()), 0)

    def share(place: int, belongs: str) -> np.ndarray:
        own = [part for key, part in parts.items() if key[place] == belongs]
        shares: np.ndarray = np.sum(own, 0) / total
        return shares

    return LossShares(
        np.array([row['step'] for row in whole]),
        {name: share(1, name) for name in names},
        {term: share(0, term) for term in dict.fromkeys(t for t, _ in losses)},
        {key.split('/', 1)[1]: values[key] for key in weighed},
        {key: values[key] for key in keys},
    )


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and those before it.

    Args:
        values: (N,).
        window: How many in all; fewer at the start.
    """
    return np.array(
        [
            values[max(0, i + 1 - window) : i + 1].mean()
            for i in range(len(values))
        ]
    )


def first_and_last(values: np.ndarray) -> tuple[float, float]:
    """Means over the first and the last tenth of what was logged.

    Args:
        values: (N,).
    """
    n = max(1, len(values) // 10)
    return float(values[:n].mean()), float(values[-n:].mean())
