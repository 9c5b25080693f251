"""Fault injection: random configurations, images and label maps, accepted or reported."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from result_table import REPORTED, Row

from densemtl.config.experiment import ExperimentConfig
from densemtl.data.datasets.folder_labels import LabelSpec
from densemtl.data.datasets.folder_options import DEFAULT_ENCODINGS
from densemtl.errors import DataError
from densemtl.io import images
from tests.helpers import random_configs, random_runs
from tests.helpers.experiments import write_tiny_config

ACCEPTED = "accepted, and equal after writing and reading"
REPORTED_IN_LINES = "reported with their location"
STEPPED, REPORTED_IN_ONE_LINE = "built, trained a step and validated", "reported in one line"
UNCLEAR = "unclear message"
DECODED, IN_RANGE = "decoded", "read, all valid or ignored"
TYPES = (
    *("uint8", "int16", "uint16", "int64", "float16", "float32", "float64", "bool", "complex64"),
)
SHAPES = (
    *((6, 8), (6, 8, 1), (1, 6, 8), (6, 8, 3), (3, 6, 8), (6, 8, 4)),
    *((0, 8), (48,), (), (2, 2, 2, 2, 2)),
)
LIMITS = (1.0, 10.0, 300.0, 1e9)


def iter_rows(scratch: Path, num_configs: int, rng: random.Random) -> Iterator[Row]:
    """Yield one row per kind of input, with a third as many training steps as other inputs."""
    yield _try_configurations(scratch / "a.yaml", num_configs, rng)
    yield _try_runs(write_tiny_config(scratch), num_configs // 3, rng)
    yield _try_images(num_configs, rng)
    yield _try_labels(scratch / "label.npy", num_configs, rng)


def _try_configurations(file: Path, count: int, rng: random.Random) -> Row:
    row = Row("random configuration files and overrides", acceptable=(ACCEPTED, REPORTED_IN_LINES))

    @seed(rng.randrange(2**31))
    @settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(random_configs.texts(), random_configs.overrides)
    def attempt(text: str, overrides: list[str]) -> None:
        row.add(_classify_configuration(file, text, overrides), f"{overrides}\n{text}")

    attempt()
    return row


def _classify_configuration(file: Path, text: str, overrides: list[str]) -> str:
    try:
        outcome = random_configs.load_outcome(file, text, overrides)
        if isinstance(outcome, ExperimentConfig):
            unchanged = random_configs.is_saved_unchanged(outcome, file)
            return ACCEPTED if unchanged else "different after writing and reading"
        return REPORTED_IN_LINES if random_configs.is_clear_error(outcome, file) else UNCLEAR
    except Exception as error:
        return f"traceback ({type(error).__name__})"


def _try_runs(file: Path, count: int, rng: random.Random) -> Row:
    """Train one step with random options of every component, also far outside their range."""
    row = Row(
        "random options of tiny networks, tasks, data and training",
        acceptable=(STEPPED, REPORTED_IN_ONE_LINE),
    )

    @seed(rng.randrange(2**31))
    @settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(random_runs.runs())
    def attempt(overrides: list[str]) -> None:
        row.add(_classify_run(file, overrides), "\n".join(overrides))

    with redirect_stdout(io.StringIO()):
        attempt()
    return row


def _classify_run(file: Path, overrides: list[str]) -> str:
    try:
        code, output = random_runs.run_one_step(overrides, file)
    except Exception as error:
        return f"traceback ({type(error).__name__})"
    if code == 0:
        return STEPPED
    return REPORTED_IN_ONE_LINE if random_runs.is_clear_error(output) else UNCLEAR


def _try_images(count: int, rng: random.Random) -> Row:
    """Decode beginnings of images that random bytes follow, and images with random sizes."""
    row = Row(
        "random bytes after JPEG and PNG headers, random image sizes",
        acceptable=(DECODED, REPORTED),
    )
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    encoded = [cv2.imencode(kind, noise)[1].tobytes() for kind in (".png", ".jpg")]
    ends = (b"IEND\xae\x42\x60\x82", b"\xff\xda\xff\xd9", b"")
    for _ in range(count):
        start = rng.choice(encoded)
        data = start[: rng.choice((2, 4, 8, 33, 160, 400))] + rng.randbytes(rng.randint(0, 300))
        data = rng.choice((data + rng.choice(ends), _change_size(start, rng)))
        row.add(_classify_image(data), data.hex())
    return row


def _change_size(encoded: bytes, rng: random.Random) -> bytes:
    """Return an encoded image with a random size in its header."""
    data, limit = bytearray(encoded), 2 ** rng.randint(1, 31)
    if encoded.startswith(b"\x89PNG"):
        data[16:24] = struct.pack(">II", rng.randrange(limit), rng.randrange(limit))
    else:
        offset = encoded.index(b"\xff\xc0") + 5
        limit = min(limit, 2**16)
        data[offset : offset + 4] = struct.pack(">HH", rng.randrange(limit), rng.randrange(limit))
    return bytes(data)


def _classify_image(data: bytes) -> str:
    try:
        image = images.decode_image(data, cv2.IMREAD_UNCHANGED, "a.png")
    except DataError as error:
        return REPORTED if _is_error_about(error, "a.png") else UNCLEAR
    except Exception as error:
        return f"traceback ({type(error).__name__})"
    return DECODED if image.nbytes <= 6 * images.MAX_PIXELS else "too large"


def _is_error_about(error: Exception, name: str) -> bool:
    return str(error).startswith(f"{name}: ") and "\n" not in str(error)


def _try_labels(file: Path, count: int, rng: random.Random) -> Row:
    """Read arrays of random types, shapes and values with random encodings of labels."""
    row = Row("label maps of random types, shapes and values", acceptable=(IN_RANGE, REPORTED))
    choices = list(product(sorted(set(DEFAULT_ENCODINGS.values())), TYPES, SHAPES, LIMITS))
    values = np.random.default_rng(rng.randrange(2**31))
    for number in range(count):
        encoding, kind, shape, limit = rng.choice(choices)
        spec = LabelSpec(
            files=".", encoding=encoding, class_names=["a", "b", "c"], ignore_values=(7,)
        )
        array = values.normal(0, limit, shape) + (limit if number % 2 else 0)
        array = np.where(values.random(shape) < 0.02, rng.choice((np.nan, np.inf, 1)), array)
        with np.errstate(all="ignore"):
            np.save(file, array.astype(kind))
        row.add(_classify_label(spec, encoding, file), f"{encoding} {kind} {shape} {limit}")
    return row


def _classify_label(spec: LabelSpec, encoding: Any, file: Path) -> str:
    try:
        label = spec.make_reader("task", file.parent)(file)
    except DataError as error:
        return REPORTED if _is_error_about(error, str(file)) else f"{UNCLEAR}: {error}"
    except Exception as error:
        return f"traceback ({type(error).__name__})"
    if encoding in ("classes", "binary") and label.dtype == np.uint8:
        in_range = bool(np.isin(label, (0, 1, 2, 255)).all())
    else:
        in_range = label.dtype == np.float32 and not bool(np.isinf(label).any())
    return IN_RANGE if in_range else "out of range"
