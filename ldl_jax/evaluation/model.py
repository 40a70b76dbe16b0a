"""A finished run as a model: images in, logits or probabilities out."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from ldl_jax import arrays
from ldl_jax.calibrate import FittedCalibrator
from ldl_jax.contract import PyTree
from ldl_jax.data.readers import pillow

BATCH = 256  # images that pass the network at once


class Model:
    """The network of a finished run, in evaluation mode.

    `model.predict_proba(images)` and `model.logits(images)` take images as the run's files had
    them: uint8, or float in [0, 1], [B, H, W, C], or a single one [H, W, C]. Images of another
    height or width are resized as the run's evaluation does it. The low-level pair
    `apply, variables = load(...)` can be unpacked from it.
    """

    def __init__(
        self,
        apply: Callable,
        variables: PyTree,
        spec: dict[str, Any],
        calibrator: FittedCalibrator | None = None,
        shorter: int = 0,
    ):
        self.apply = apply
        self.variables = variables
        self.classes = tuple(spec["classes"])
        self.shape = tuple(spec["shape"])  # H, W, C
        self.calibrator = calibrator
        self._shorter = shorter  # side that evaluation resizes to before it crops; 0: none
        self._step = jax.jit(lambda variables, image: apply(variables, image).logits)

    def __iter__(self) -> Iterator:
        return iter((self.apply, self.variables))

    def __repr__(self) -> str:
        height, width, channels = self.shape
        fitted = "no calibrator" if self.calibrator is None else f"{self.calibrator.name} fitted"
        return f"Model({len(self.classes)} classes, images {height}x{width}x{channels}, {fitted})"

    def logits(self, images: Any) -> np.ndarray:
        """Logits f[B, K] of images, raw; [K] of a single image.

        Raises ValueError if the images have other channels, another range or another layout.
        """
        batch, single = self._prepared(images)
        parts = []
        for first in range(0, len(batch), BATCH):
            part = batch[first : first + BATCH]
            parts.append(np.asarray(self._step(self.variables, part)))
        logits = np.concatenate(parts)
        return logits[0] if single else logits

    def predict_proba(self, images: Any, *, calibrated: bool = True) -> np.ndarray:
        """Probabilities f[B, K] of images, with the run's calibrator if it has one; [K] of one.

        calibrated: False leaves the calibrator out.
        """
        logits = self.logits(images)
        rows = np.atleast_2d(logits)
        use_calibrator = calibrated and self.calibrator is not None
        probs = self.calibrator(rows) if use_calibrator else softmax(rows, -1)
        return probs[0] if logits.ndim == 1 else probs

    def _prepared(self, images: Any) -> tuple[np.ndarray, bool]:
        """(images [B, H, W, C] of the run's shape, whether it was a single one)."""
        batch = arrays.as_numpy(images, "images")
        single = batch.ndim == 3
        batch = batch[None] if single else batch
        self._check(batch, "[H, W, C]" if single else "[B, H, W, C]")
        if batch.shape[1:] != self.shape:
            batch = np.stack([self._resized(image) for image in batch])
        return batch, single

    def _check(self, batch: np.ndarray, layout: str) -> None:
        channels = self.shape[2]
        shape = list(batch.shape)
        if batch.ndim != 4 or not batch.size:
            raise ValueError(
                f"images must have shape [B, H, W, {channels}] or [H, W, {channels}], got {shape}"
            )
        if batch.shape[3] != channels:
            hint = ""
            if batch.shape[1] == channels:
                hint = "; they look channels-first, pass images.transpose(0, 2, 3, 1)"
            raise ValueError(f"images must have {channels} channels last, got {shape}{hint}")
        if batch.dtype == np.uint8:
            return
        if batch.dtype.kind != "f":
            raise ValueError(f"images must be uint8 or float in [0, 1], got {batch.dtype.name}")
        lowest, highest = float(batch.min()), float(batch.max())
        if not (lowest >= 0 and highest <= 1):
            hint = "; pass them as uint8, or divided by 255" if 1 < highest <= 255 else ""
            raise ValueError(
                f"images of type {batch.dtype.name} must be in [0, 1], got {lowest:.4g} to "
                f"{highest:.4g}{hint}"
            )

    def _resized(self, image: np.ndarray) -> np.ndarray:
        """An image u8 or float [h, w, C], in the run's size."""
        height, width, _ = self.shape
        if height != width:
            raise ValueError(
                f"images must be {height} x {width} pixels, got {image.shape[0]} x {image.shape[1]}"
            )
        as_bytes = image if image.dtype == np.uint8 else np.rint(image * 255).astype(np.uint8)
        return pillow.resized(as_bytes, height, shorter=self._shorter)
