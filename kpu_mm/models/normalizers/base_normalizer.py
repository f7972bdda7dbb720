"""What every normaliser of targets promises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kpu_mm.structures import Features, Moments

from ..json_state import from_tensor, to_tensor
from .affine_map import AffineMap


class BaseNormalizer(nn.Module):
    """An invertible linear change of one teacher's features.

    Its summary and each of its maps have their own. Fitted once before
    training and then constant; a part of the state dict. A subclass
    implements :meth:`solve`.

    Args:
        summary_channels: Channels of the teacher's summary; None for a
            teacher without one.
        channels: Channels of each of its maps.
        summary: Normalise the summary too. Defaults to True.

    Attributes:
        dense: Whether the change mixes channels.
        fitted: A bool scalar, whether the statistics have been set.
    """

    dense = True
    fitted: Tensor

    def __init__(
        self,
        summary_channels: int | None,
        channels: Sequence[int],
        summary: bool = True,
    ) -> None:
        super().__init__()
        self.summary: Any = None
        if summary and summary_channels is not None:
            self.summary = self._unfitted(summary_channels)
        self.maps: Any = nn.ModuleList(self._unfitted(c) for c in channels)
        self.register_buffer('fitted', torch.tensor(False))
        self._seen_fitted = False

    @abstractmethod
    def solve(self, moments: Moments) -> AffineMap:
        """Find the map for one output.

        Args:
            moments: Those of its vectors, on the CPU.

        Raises:
            ValueError: If these do not define one.
        """

    @torch.no_grad()
    def fit(self, moments: Mapping[str, Moments]) -> None:
        """Set the statistics.

        Args:
            moments: Those of each output, by the names of
                :meth:`Features.outputs`.

        Raises:
            ValueError: If those of an output do not define a map.
        """
        for output, target in self._outputs().items():
            try:
                found = self.solve(moments[output])
            except ValueError as error:
                raise ValueError(f'{output}: {error}') from error
            target.load_state_dict(found.state_dict())
        self.fitted.fill_(True)

    def forward(self, features: Features) -> Features:
        """Normalise a teacher's features, in float32 whatever the autocast.

        Args:
            features: Summary (B, D) and maps, each (B, C_i, H_i, W_i).

        Raises:
            RuntimeError: If the statistics have not been set.
        """
        # The buffer may be on a GPU: it is looked at until it is set.
        self._seen_fitted = self._seen_fitted or bool(self.fitted)
        if not self._seen_fitted:
            raise RuntimeError(
                f'the {type(self).__name__} of a teacher has no statistics: '
                "add dict(type='kpu_mm.NormalizerFitHook') to the hooks, "
                'which fits it before training, or load a checkpoint that '
                'has them.'
            )
        return self._change(features, lambda a: a.forward)

    def invert(self, features: Features) -> Features:
        """Bring normalised features back to the teacher's space.

        Args:
            features: Summary (B, D) and maps, each (B, C_i, H_i, W_i).
        """
        return self._change(features, lambda a: a.invert)

    def get_extra_state(self) -> Tensor:
        """The kind of normaliser, as JSON in a uint8 tensor."""
        return to_tensor(type(self).__name__)

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse the statistics of another kind of normaliser.

        Raises:
            RuntimeError: If they are.
        """
        saved, own = from_tensor(state), type(self).__name__
        if saved != own:
            raise RuntimeError(
                f'the checkpoint was trained on targets of a {saved}, but '
                f'the config has normalizer {own!r}; set model.normalizer to '
                f"dict(type='kpu_mm.{saved}'), or start anew."
            )

    def _unfitted(self, channels: int) -> AffineMap:
        shape = (channels, channels) if self.dense else (channels,)
        return AffineMap(
            torch.zeros(channels), torch.zeros(shape), torch.zeros(shape)
        )

    def _outputs(self) -> dict[str, AffineMap]:
        outputs = {f'map {i}': m for i, m in enumerate(self.maps)}
        if self.summary is not None:
            outputs['summary'] = self.summary
        return outputs

    def _change(
        self,
        features: Features,
        direction: Callable[[AffineMap], Callable[[Tensor], Tensor]],
    ) -> Features:
        device = features.maps[0].device.type
        with torch.autocast(device, enabled=False):
            summary = features.summary
            if summary is not None and self.summary is not None:
                summary = direction(self.summary)(summary)
            maps = tuple(
                # over channels: (B, C, H, W) -> (B, H, W, C) and back
                direction(a)(m.movedim(1, -1)).movedim(-1, 1)
                for a, m in zip(self.maps, features.maps, strict=True)
            )
        return features._replace(summary=summary, maps=maps)
