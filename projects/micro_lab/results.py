"""The scores of a reproduction, apart from its runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kpu_mm.visualization import read_log

from .paper_rows import METRICS, STUDENTS, UNTRAINED, all_rows

# From the name and seed of a training to its folder.
RunOf = Callable[[str, int], Path]
# Scores of a run by metric; of all seeds, by seed.
Scores = Mapping[str, float]
Seeds = Mapping[str, Scores]


class Results(NamedTuple):
    """All scores. It is what results.json holds.

    Args:
        teachers: Scores of each teacher and of the sentinel; zero-shot
            scores of the teachers under 'zero-shot'.
        students: For each student, and for the untrained adapter, what
            evaluate.py and detector.py wrote, by seed.
        decoders: For each row of the tables, by seed, METRICS in percent.
    """

    teachers: Mapping[str, Scores]
    students: Mapping[str, Seeds]
    decoders: Mapping[str, Seeds]

    def write(self, path: Path) -> None:
        """Write results.json."""
        path.write_text(json.dumps(self._asdict(), indent=1) + '\n')

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read results.json."""
        return cls(**json.loads(path.read_text()))


def collect(run_of: RunOf, teachers: Path, seeds: Sequence[int]) -> Results:
    """Read the scores of all runs that are finished.

    Args:
        run_of: Folders of the trainings.
        teachers: Folder of the teachers' scores.
        seeds: All seeds.
    """

    def of_seeds(name: str, done: str, read: Callable[[Path], Any]) -> dict[str, Scores]:
        runs = {str(seed): run_of(name, seed) for seed in seeds}
        return {s: read(run) for s, run in runs.items() if (run / done / 'done.json').is_file()}

    return Results(
        _scores(teachers),
        {
            UNTRAINED: of_seeds(UNTRAINED, '', _student_scores),
            **{name: of_seeds(name, 'evaluated', _student_scores) for name in STUDENTS},
        },
        {key: of_seeds(key, '', _decoder_scores) for key in all_rows()},
    )


def _scores(run: Path) -> Any:
    return json.loads((run / 'scores.json').read_text())


def _student_scores(run: Path) -> Scores:
    scores: dict[str, float] = _scores(run)
    detected = run / 'detected'
    return scores | (_scores(detected) if (detected / 'done.json').is_file() else {})


def _decoder_scores(run: Path) -> Scores:
    last = read_log(run)[-1]
    # COCO gives AP as a share, the others give percent.
    return {name: (100 if name.endswith('AP') else 1) * last[key] for name, key in METRICS.items()}
