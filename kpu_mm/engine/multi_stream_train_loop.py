"""A train loop that gives the model one batch of every stream."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.models.multi_stream_model import MultiStreamModel
from kpu_mm.registry import LOOPS

from .resumable_train_loop import ResumableTrainLoop


@LOOPS.register_module()
class MultiStreamTrainLoop(ResumableTrainLoop):
    """Resumable training over {name: batch} of several streams.

    Takes the arguments of :class:`ResumableTrainLoop`, of which
    ``dataloader`` has one dataloader's config for each stream.
    """

    def build_loader(self, dataloader: dict[str, Any]) -> MultiStreamLoader:
        """Build the loader of all streams.

        Args:
            dataloader: For each stream's name, its dataloader's config.
        """
        return MultiStreamLoader(dataloader)

    def run(self) -> Any:
        """Train, if the streams are those that the model needs.

        Raises:
            ValueError: If a stream is missing or takes no part.
        """
        model = self.runner.model
        if is_model_wrapper(model):
            model = model.module
        if isinstance(model, MultiStreamModel):
            model.check_streams(self.dataloader.loaders)
        return super().run()
