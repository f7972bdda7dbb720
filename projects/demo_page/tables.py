"""Predictions as HTML. What users wrote is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


def class_bars(prediction: Mapping[str, Any], topk: int = 10) -> str:
    """Classes with bars as long as their scores.

    Args:
        prediction: Of a classification, best first.
        topk: How many of the best. Defaults to 10.
    """
    rows = zip(prediction['names'], prediction['scores'], strict=True)
    cells = [
        f'<li><span>{escape(name)}</span><b>{score:.1%}</b>'
        f'<i style="width:{score:.1%}"></i></li>'
        for name, score in list(rows)[:topk]
    ]
    return f'<ol class="bars">{"".join(cells)}</ol>'


def box_table(prediction: Mapping[str, Any], threshold: float) -> str:
    """Boxes, best first, with corners in pixels.

    Args:
        prediction: Of a detection.
        threshold: Above which boxes were looked for.
    """
    columns = (prediction[key] for key in ('names', 'scores', 'bboxes'))
    rows = ''.join(
        f'<tr><td>{escape(name)}</td><td>{score:.3f}</td>'
        f'<td>{", ".join(f"{corner:.0f}" for corner in box)}</td></tr>'
        for name, score, box in zip(*columns, strict=True)
    )
    if not rows:
        return (
            f'<p class="nothing">No box scores more than {threshold:g}; '
            'lower the threshold, or write something else.</p>'
        )
    head = '<th>phrase</th><th>score</th><th>x1, y1, x2, y2</th>'
    return f'<table class="boxes"><tr>{head}</tr>{rows}</table>'


def heat_range(prediction: Mapping[str, Any]) -> str:
    """Lowest and highest similarity.

    Args:
        prediction: Of a segmentation with cosines of one class.
    """
    heat = prediction['scores'][0]
    return f'<p>Similarity from {heat.min():.3f} to {heat.max():.3f}</p>'
