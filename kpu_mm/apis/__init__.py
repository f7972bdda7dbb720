"""Inferencers: from images to predictions, the OpenMMLab way.

Every Inferencer is called with images and returns ``dict(predictions=[...],
visualization=[...])``, one entry an image. An image is a path, a URL, a PIL
image, a uint8 array as OpenCV has it, (H, W, 3) **BGR** or (H, W), a folder,
a wildcard, a video file, or a list of these. Pictures in ``visualization``
are **RGB** uint8 arrays (H, W, 3) of the image's size; the list is empty
unless ``return_vis=True``.

Keys of a prediction, besides ``img_path``, the image's path, URL or name;
bold ones are numpy arrays, the others are JSON:

===================== ====================================================
classification        labels, scores, names: best first
detection             bboxes (x1, y1, x2, y2 in pixels of the image),
                      scores, labels, names: best first, one for each box;
                      masks (COCO's RLE) if the decoder gives them
segmentation          **sem_seg** (H, W) indices into names; names; shares,
                      the share of the pixels that each name has;
                      **scores** (K, H, W) float32 with
                      ``score_maps='probability'`` or 'cosine' (similarity
                      in [-1, 1]; one class is enough, and then there is
                      neither sem_seg nor shares)
features              **summary** (D,), None for a model without one;
                      **maps**, a list of (C, h, w), fine to coarse
===================== ====================================================
"""

from .classification_inferencer import ClassificationInferencer, ZeroShotClassificationInferencer
from .detection_inferencer import DetectionInferencer, ZeroShotDetectionInferencer
from .feature_inferencer import FeatureInferencer
from .segmentation_inferencer import SegmentationInferencer, ZeroShotSegmentationInferencer
