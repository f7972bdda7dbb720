"""k nearest neighbours: DINO's vote, a classifier, its test loop, analysis."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.runner import Runner, TestLoop
from torch import Tensor
from torch.utils.data import DataLoader

from kpu_mm.registry import LOOPS, MODELS

Vectors = tuple[Tensor, Tensor]


def knn_vote(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int = 65536,
) -> Tensor:
    """Let the k most similar features vote for the class of each query.

    As DINO evaluates (https://arxiv.org/abs/2104.14294, section 4.1): each of
    the k neighbours by cosine similarity s votes for its class with weight
    exp(s / temperature). Similarities are held for ``chunk_size`` features of
    the bank at a time.

    Args:
        queries: L2-normalised features, (B, D).
        bank: L2-normalised features of known classes, (N, D).
        labels: Their classes, (N,) int64.
        num_classes: Number of classes.
        k: Number of neighbours, all features if there are fewer. Defaults to
            20.
        temperature: Softness of the weights. Defaults to 0.07, DINO's.
        chunk_size: Features compared at a time. Defaults to 65536.

    Returns:
        Share of each class in the votes, (B, num_classes), rows sum to 1.
    """
    values = queries.new_empty(len(queries), 0)
    indices = labels.new_empty(len(queries), 0)
    for start in range(0, len(bank), chunk_size):
        similarity = queries @ bank[start : start + chunk_size].T  # (B, M)
        found = similarity.topk(min(k, similarity.shape[1]), dim=1)
        # the best k of this chunk and of all chunks before
        values = torch.cat([values, found.values], 1)
        indices = torch.cat([indices, found.indices + start], 1)
        best = values.topk(min(k, values.shape[1]), dim=1)
        values, indices = best.values, indices.gather(1, best.indices)
    # The shares are those of exp(s / T), without its overflow.
    weights = (values / temperature).softmax(1)  # (B, k)
    votes = weights.new_zeros(len(queries), num_classes)
    return votes.scatter_add_(1, labels[indices], weights)


@MODELS.register_module()
class KNNClassifier(BaseModel):
    """A backbone and a bank of features with known classes.

    The bank is filled by :class:`KNNTestLoop`. Data samples are MMPretrain's,
    and its metrics evaluate the predictions.

    Args:
        backbone: Config of a backbone whose last output is a vector an image,
            such as KPUBackbone with ``out_type='summary'``.
        num_classes: Number of classes.
        k: Number of neighbours. Defaults to 20.
        temperature: Softness of the vote. Defaults to 0.07.
        data_preprocessor: Config of the data preprocessor. Defaults to None.
    """

    bank: Tensor
    labels: Tensor

    def __init__(
        self,
        backbone: dict[str, Any],
        num_classes: int,
        k: int = 20,
        temperature: float = 0.07,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.num_classes = num_classes
        self.k = k
        self.temperature = temperature
        # Not in checkpoints: the test loop fills the bank before each test.
        self.register_buffer('bank', torch.empty(0), persistent=False)
        self.register_buffer('labels', torch.empty(0, dtype=torch.long), persistent=False)

    def set_bank(self, features: Tensor, labels: Tensor) -> None:
        """Replace the bank.

        Args:
            features: What ``mode='tensor'`` gives, (N, D).
            labels: Their classes, (N,) int64.

        Raises:
            ValueError: If a class is not below ``num_classes``.
        """
        if labels.max() >= self.num_classes:
            raise ValueError(
                f'the bank has label {int(labels.max())}, but num_classes is '
                f'{self.num_classes}; set num_classes to that of the data.'
            )
        device = self.bank.device
        self.bank, self.labels = features.to(device), labels.to(device)

    def forward(
        self, inputs: Tensor, data_samples: list[Any] | None = None, mode: str = 'tensor'
    ) -> Any:
        """Compute features of images, or predictions for them.

        Args:
            inputs: Normalised images, (B, 3, H, W).
            data_samples: MMPretrain's data samples; only 'predict' needs
                them. Defaults to None.
            mode: 'tensor' or 'predict'. Defaults to 'tensor'.

        Returns:
            For 'tensor' the L2-normalised features, (B, D); for 'predict' the
            data samples with scores and labels.

        Raises:
            ValueError: If the mode is another.
            RuntimeError: If there is no bank to compare with.
        """
        # Of vectors of length 1 the dot products are the cosines.
        features = F.normalize(self.backbone(inputs)[-1], dim=1)
        if mode == 'tensor':
            return features
        if mode != 'predict' or data_samples is None:
            raise ValueError(
                f"mode={mode!r}: choose 'tensor', or 'predict' with data "
                'samples; KNNClassifier is not trained.'
            )
        if not len(self.bank):
            raise RuntimeError(
                'KNNClassifier has no features to compare with: set '
                "test_cfg.type to 'kpu_mm.KNNTestLoop'."
            )
        # (B, num_classes)
        scores = knn_vote(
            features, self.bank, self.labels, self.num_classes, self.k, self.temperature
        )
        for sample, score in zip(data_samples, scores, strict=True):
            sample.set_pred_score(score).set_pred_label(score.argmax())
        return data_samples


@LOOPS.register_module()
class KNNTestLoop(TestLoop):
    """Fill the bank of a :class:`KNNClassifier`, then test as usual.

    Each rank extracts the features that its sampler gives it; all ranks
    gather the whole bank.

    Args:
        runner: The runner.
        dataloader: Data to classify.
        evaluator: The metrics.
        bank_dataloader: Data whose classes are known, without augmentation.
            Each rank must get as many images.
        fp16: Test in half precision. Defaults to False.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict[str, Any],
        evaluator: Evaluator | dict[str, Any] | list[Any],
        bank_dataloader: dict[str, Any],
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        self.bank_dataloader = runner.build_dataloader(bank_dataloader, seed=runner.seed)
        model: Any = runner.model
        self.model = model.module if is_model_wrapper(model) else model
        # A runner that only tests does not load the weights of `init_cfg`;
        # those of a checkpoint come afterwards and replace these.
        self.model.init_weights()

    def run(self) -> dict[str, float]:
        """Fill the bank and test.

        Returns:
            The metrics.
        """
        self.model.set_bank(*self.extract_bank())
        metrics: dict[str, float] = super().run()
        return metrics

    @torch.no_grad()
    def extract_bank(self) -> Vectors:
        """Extract the features of all images of the bank.

        Returns:
            Features (N, D) and labels (N,), in the order of the data set.
        """
        self.model.eval()
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        total = len(self.bank_dataloader)
        for i, batch in enumerate(self.bank_dataloader, start=1):
            data = self.model.data_preprocessor(batch, False)
            samples = data['data_samples']
            # On the CPU, as the bank is gathered and sorted before it is used.
            features = self.model(data['inputs'], mode='tensor').cpu()
            labels = torch.cat([s.gt_label for s in samples]).cpu()
            index = torch.tensor([s.sample_idx for s in samples])
            parts.append((features, labels, index))
            if i % 100 == 0 or i == total:
                self.runner.logger.info(f'bank: {i} of {total} batches')
        features, labels, index = (
            torch.cat(all_gather(torch.cat(part))) for part in zip(*parts, strict=True)
        )
        # Samplers repeat images to give each rank as many; one that counted
        # twice would vote twice. `order` keeps the first copy of each.
        order = index.argsort(stable=True)
        first = torch.ones_like(order, dtype=torch.bool)
        first[1:] = index[order][1:] != index[order][:-1]
        return features[order[first]], labels[order[first]]
