"""Base of the normalisers, and the affine map that each of them finds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import broadcast, get_world_size
from torch import Tensor, nn

from kpu_mm.structures import Features, Moments, valid_vectors
from kpu_mm.weights.state_dict import json_from_tensor, json_to_tensor


class AffineMap(nn.Module):
    """y = W (x - m), with its inverse, kept as buffers.

    Args:
        mean: m, (C,).
        weight: W, (C, C), or its diagonal, (C,), if W is diagonal.
        inverse: That of ``weight``, in the same form.
    """

    mean: Tensor
    weight: Tensor
    inverse: Tensor

    def __init__(self, mean: Tensor, weight: Tensor, inverse: Tensor) -> None:
        super().__init__()
        self.register_buffer('mean', mean.float())
        self.register_buffer('weight', weight.float())
        self.register_buffer('inverse', inverse.float())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise vectors, (..., C), in the buffers' precision."""
        return _times(self.weight, x.to(self.mean.dtype) - self.mean)

    def invert(self, y: Tensor) -> Tensor:
        """Bring normalised vectors, (..., C), back to the teacher's space."""
        return _times(self.inverse, y.to(self.mean.dtype)) + self.mean

    @torch.no_grad()
    def fold_into(self, linear: nn.Linear) -> None:
        """Let a layer give x where it gave y, at no cost at inference.

        PHI-S (https://arxiv.org/abs/2410.01680), appendix A.6.

        Args:
            linear: The layer, (..., D) -> (..., C), changed in place.
        """
        inverse = self.inverse.double()
        # The columns of a layer's weight are vectors of its output's space.
        weight = _times(inverse, linear.weight.double().T).T
        bias = _times(inverse, linear.bias.double()) + self.mean.double()
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """A matrix (C, C), or its diagonal (C,), times vectors (..., C)."""
    if matrix.ndim == 1:
        return vectors * matrix
    return F.linear(vectors, matrix)


class BaseNormalizer(nn.Module):
    """An invertible affine map of one teacher's features.

    The summary and each spatial map have an affine map of their own. It is
    fitted once before training, is constant from then on, and is a part of
    the state dict. A subclass implements :meth:`solve`.

    Args:
        summary_channels: Channels of the teacher's summary; None for a
            teacher without one.
        channels: Channels of each of its maps.
        summary: Normalise the summary too. Defaults to True.

    Attributes:
        dense: Whether the map mixes channels.
        fitted: A bool scalar, whether the statistics have been set.
    """

    dense = True
    fitted: Tensor

    def __init__(
        self, summary_channels: int | None, channels: Sequence[int], summary: bool = True
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
        # Reading a buffer on a GPU waits for it; once is enough.
        self._seen_fitted = self._seen_fitted or bool(self.fitted)
        if not self._seen_fitted:
            raise RuntimeError(
                f'the {type(self).__name__} of a teacher has no statistics: '
                "add dict(type='kpu_mm.NormalizerFitHook') to the hooks, "
                'which fits it before training, or load a checkpoint that has them.'
            )
        return self._change(features, self._outputs())

    def invert(self, features: Features) -> Features:
        """Bring normalised features back to the teacher's space.

        Args:
            features: Summary (B, D) and maps, each (B, C_i, H_i, W_i).
        """
        inverse = {name: a.invert for name, a in self._outputs().items()}
        return self._change(features, inverse)

    def get_extra_state(self) -> Tensor:
        """The kind of normaliser, as JSON in a uint8 tensor."""
        return json_to_tensor(type(self).__name__)

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse the statistics of another kind of normaliser.

        Raises:
            RuntimeError: If they are.
        """
        saved, own = json_from_tensor(state), type(self).__name__
        if saved != own:
            raise RuntimeError(
                f'the checkpoint was trained on targets of a {saved}, but '
                f'the config has normalizer {own!r}; set model.normalizer to '
                f"dict(type='kpu_mm.{saved}'), or start anew."
            )

    def _unfitted(self, channels: int) -> AffineMap:
        # zeros of the right shapes, so that a checkpoint can be loaded
        shape = (channels, channels) if self.dense else (channels,)
        return AffineMap(torch.zeros(channels), torch.zeros(shape), torch.zeros(shape))

    def _outputs(self) -> dict[str, AffineMap]:
        outputs = {f'map {i}': m for i, m in enumerate(self.maps)}
        if self.summary is not None:
            outputs['summary'] = self.summary
        return outputs

    def _change(
        self, features: Features, change: Mapping[str, Callable[[Tensor], Tensor]]
    ) -> Features:
        """Change each output by its own map, (..., C) -> (..., C)."""
        device = features.maps[0].device.type
        # A whitening scales by up to 1e5; bfloat16 would keep 8 bits of that.
        with torch.autocast(device, enabled=False):
            summary = features.summary
            if summary is not None and 'summary' in change:
                summary = change['summary'](summary)
            maps = tuple(
                # over channels: (B, C, H, W) -> (B, H, W, C) and back
                change[f'map {i}'](m.movedim(1, -1)).movedim(-1, 1)
                for i, m in enumerate(features.maps)
            )
        return features._replace(summary=summary, maps=maps)


@torch.no_grad()
def fit_normalizers(
    distiller: Any, loaders: Mapping[str, Iterable[Mapping[str, Any]]], num_images: int
) -> list[str]:
    """Fit those normalisers of a distiller that have no statistics yet.

    All processes share the images and get the same statistics.

    Args:
        distiller: A :class:`KPUDistiller`.
        loaders: For each stream, endless batches of its images.
        num_images: Number of images of each stream, rounded up to whole
            batches.

    Returns:
        The teachers whose normalisers were fitted.

    Raises:
        ValueError: If the features of a teacher do not define a normaliser.
    """
    unfitted = {
        name: link.normalizer
        for name, link in distiller.links.items()
        if link.normalizer is not None and not link.normalizer.fitted
    }
    found: dict[str, dict[str, Moments]] = {name: {} for name in unfitted}
    for stream, teachers in distiller.streams.of_stream.items():
        measured = {name: found[name] for name in teachers if name in found}
        if measured:
            _measure(distiller, measured, loaders[stream], num_images)
    for name, moments in found.items():
        together = {k: m.over_ranks().cpu() for k, m in moments.items()}
        try:
            unfitted[name].fit(together)
        except ValueError as error:
            raise ValueError(f"normalizer of teacher '{name}', {error}") from error
        for buffer in unfitted[name].buffers():
            # Ranks solve alike, but not to the last bit on all machines.
            broadcast(buffer)
    return list(unfitted)


def _measure(
    distiller: Any,
    found: Mapping[str, dict[str, Moments]],
    batches: Iterable[Mapping[str, Any]],
    num_images: int,
) -> None:
    """Add a stream's images to the moments of teachers' outputs."""
    for batch in batches:
        data = distiller.data_preprocessor(batch, False)
        for name, moments in found.items():
            teacher = distiller.teachers[name]
            features = teacher.encode(data['images'], data['mask'])
            for output, values, mask in features.outputs():
                new = Moments.of(valid_vectors(values, mask))
                old = moments.get(output)
                moments[output] = new if old is None else old + new
        num_images -= len(batch['images']) * get_world_size()
        if num_images <= 0:
            break
