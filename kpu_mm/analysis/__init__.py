"""What models cost, and what their features look like in numbers."""

from .agreement import Agreement, measure_agreement
from .batches import Batch, find_sources, first_batches, whole_images
from .cost import count_flops, count_parameters, flops_by_part, part_of
from .distilled import all_models, load_distiller, require_term
from .knn import embed, knn_accuracy, labelled_images, vectors_of
from .loss_share import LossShares, loss_shares
from .pca_panels import pca_panels
from .report import markdown_table, write_report
from .resolution_sweep import sweep
from .streaming_cka import StreamingCKA
from .teacher_gap import common_space, measure_teachers, own_space

__all__ = [
    'Agreement',
    'Batch',
    'LossShares',
    'StreamingCKA',
    'all_models',
    'common_space',
    'count_flops',
    'count_parameters',
    'embed',
    'find_sources',
    'first_batches',
    'flops_by_part',
    'knn_accuracy',
    'labelled_images',
    'load_distiller',
    'loss_shares',
    'markdown_table',
    'measure_agreement',
    'measure_teachers',
    'own_space',
    'part_of',
    'pca_panels',
    'require_term',
    'sweep',
    'vectors_of',
    'whole_images',
    'write_report',
]
