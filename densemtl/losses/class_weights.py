"""Weights of classes in losses: given, or computed from the training labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densemtl.config.constraints import NonNegativeFloat, replace_union_errors
from densemtl.errors import ConfigError

WeightMethod = Literal["inverse", "median", "effective"]
WEIGHT_METHODS: tuple[WeightMethod, ...] = get_args(WeightMethod)

ClassWeights = Annotated[
    WeightMethod | tuple[NonNegativeFloat, ...] | None,
    replace_union_errors("inverse, median, effective, null or one number from 0 per class"),
]
"""Type of the option `class_weights`."""

EFFECTIVE_BETA = 0.999
"""Beta of the effective number, which corresponds to at most 1000 different images per class."""


@dataclass(frozen=True)
class ClassCounts:
    """Counts of the classes of one task in training labels, arrays of shape (C,).

    Attributes:
        pixels: number of pixels of each class.
        images: number of images that contain the class.
        image_pixels: number of valid pixels of these images.
    """

    pixels: NDArray[np.int64]
    images: NDArray[np.int64]
    image_pixels: NDArray[np.int64]

    @classmethod
    def zeros(cls, num_ids: int) -> ClassCounts:
        """Return the counts of no image.

        Args:
            num_ids: number of classes.

        Returns:
            Zeros.
        """
        zeros = np.zeros(num_ids, np.int64)
        return cls(zeros, zeros, zeros)

    @classmethod
    def of_image(cls, pixels: NDArray[np.int64]) -> ClassCounts:
        """Return the counts of one image.

        Args:
            pixels: number of pixels of each class in the image.

        Returns:
            The counts.
        """
        occurs = (pixels > 0).astype(np.int64)
        return cls(pixels, occurs, occurs * pixels.sum())

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(
            self.pixels + other.pixels,
            self.images + other.images,
            self.image_pixels + other.image_pixels,
        )


def compute_class_weights(method: WeightMethod, counts: ClassCounts) -> list[float]:
    """Compute class weights, with a mean of 1 over the classes that occur.

    - "inverse": 1 / (pixels of the class).
    - "median": median frequency / frequency of the class, where the frequency is the share of the
      class among the valid pixels of images that contain it. Eigen and Fergus, "Predicting depth,
      surface normals and semantic labels with a common multi-scale architecture", ICCV 2015.
    - "effective": (1 - b) / (1 - b^n) with b = 0.999. Cui et al., "Class-balanced loss based on
      effective number of samples", CVPR 2019, equation 2. A sample is an image that contains the
      class, since the pixels of one image are nearly duplicates: with pixels, n would be so large
      that all weights were equal.

    Args:
        method: "inverse", "median" or "effective".
        counts: counts of the classes.

    Returns:
        One weight per class; 1 for classes that do not occur.

    Example:
        >>> import numpy as np
        >>> counts = ClassCounts(np.array([30, 10, 0]), np.array([2, 1, 0]), np.array([40, 20, 0]))
        >>> compute_class_weights("inverse", counts), compute_class_weights("median", counts)
        ([0.5, 1.5, 1.0], [0.8, 1.2, 1.0])
    """
    occurs = counts.pixels > 0
    weights = np.ones(len(occurs))
    if not occurs.any():
        return weights.tolist()
    pixels = counts.pixels[occurs].astype(np.float64)
    if method == "inverse":
        found = 1 / pixels
    elif method == "median":
        found = counts.image_pixels[occurs] / pixels  # the mean of 1 removes the median
    else:
        found = 1 / (1 - EFFECTIVE_BETA ** counts.images[occurs].astype(np.float64))
    weights[occurs] = found / found.mean()
    return [float(f"{weight:.6g}") for weight in weights]


class ClassWeighting:
    """Class weights of a loss, which may still have to be computed.

    Args:
        num_ids: number of classes.
        weights: the option `class_weights`.

    Attributes:
        method: how the weights are computed from training labels; None if they are given.

    Raises:
        ConfigError: if there is not one weight per class, or all weights are 0.
    """

    def __init__(self, num_ids: int, weights: WeightMethod | Sequence[float] | None) -> None:
        self._num_ids = num_ids
        self.method: WeightMethod | None = weights if isinstance(weights, str) else None
        self._values: Tensor | None = None
        self._copies: dict[torch.device, Tensor] = {}
        if weights is not None and not isinstance(weights, str):
            self.set(weights)

    @property
    def is_missing(self) -> bool:
        """Whether the weights still have to be computed."""
        return self.method is not None and self._values is None

    def set(self, weights: Sequence[float]) -> None:
        """Set the weights.

        Args:
            weights: one weight per class.

        Raises:
            ConfigError: if there is not one weight per class, or all weights are 0.
        """
        if len(weights) != self._num_ids:
            counts = f"{len(weights)} weights for {self._num_ids} classes"
            raise ConfigError(f"class_weights: {counts}; give one weight per class")
        if not any(weights):
            raise ConfigError("class_weights: all weights are 0; give at least one above 0")
        self._values, self._copies = torch.tensor(weights, dtype=torch.float32), {}

    def on(self, device: torch.device) -> Tensor | None:
        """Return the weights on a device, to which they are copied only once.

        Args:
            device: the device of the logits.

        Returns:
            Weights of shape (C,), float32; None if all classes have the weight 1.

        Raises:
            ConfigError: if the weights were not computed.
        """
        if self.is_missing:
            raise ConfigError(
                f"class_weights: {self.method!r} is computed from training labels, which were not "
                "counted; give one weight per class, or call task.set_class_weights"
            )
        if self._values is None:
            return None
        if device not in self._copies:
            self._copies[device] = self._values.to(device)
        return self._copies[device]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without copies on devices, which worker processes must not open."""
        return {**self.__dict__, "_copies": {}}
