"""Test loop that first fills the bank of a k-NN classifier."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_gather
from mmengine.evaluator import Evaluator
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, TestLoop
from torch import Tensor
from torch.utils.data import DataLoader

from kpu_mm.registry import LOOPS


@LOOPS.register_module()
class KNNTestLoop(TestLoop):
    """Extract the features of the training set, then test as usual.

    Each rank extracts what its sampler gives it; all ranks gather the whole.
    An image that the sampler repeats to fill up the last batch counts once.

    Nobody trains the model, so the loop itself has it load the weights of its
    ``init_cfg``; a checkpoint given to the runner comes after these.

    Args:
        runner: The runner.
        dataloader: Data to classify.
        evaluator: Judges the predictions.
        bank_dataloader: Data whose classes are known, without augmentation.
            Each rank must get as many images.
        fp16: Test in half precision. Defaults to False.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict[str, Any],
        evaluator: Evaluator | dict[str, Any] | list[Any],
        bank_dataloader: DataLoader | dict[str, Any],
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        self.bank_dataloader = (
            runner.build_dataloader(bank_dataloader, seed=runner.seed)
            if isinstance(bank_dataloader, dict)
            else bank_dataloader
        )
        self.model: Any = (
            runner.model.module
            if is_model_wrapper(runner.model)
            else runner.model
        )
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
    def extract_bank(self) -> tuple[Tensor, Tensor]:
        """Features and labels of the whole training set.

        Returns:
            (N, D) and (N,), in the order of the data set.
        """
        self.model.eval()
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        total = len(self.bank_dataloader)
        for i, batch in enumerate(self.bank_dataloader):
            data = self.model.data_preprocessor(batch, False)
            samples = data['data_samples']
            features = self.model(data['inputs'], mode='tensor').cpu()
            labels = torch.cat([s.gt_label for s in samples]).cpu()
            index = torch.tensor([s.sample_idx for s in samples])
            parts.append((features, labels, index))
            if (i + 1) % 100 == 0 or i + 1 == total:
                self.runner.logger.info(f'bank: {i + 1} of {total} batches')
        features, labels, index = (
            torch.cat(all_gather(torch.cat(part)))
            for part in zip(*parts, strict=True)
        )
        # position of the first copy of each image, in order
        order = index.argsort(stable=True)
        first = torch.ones_like(order, dtype=torch.bool)
        first[1:] = index[order][1:] != index[order][:-1]
        return features[order[first]], labels[order[first]]
