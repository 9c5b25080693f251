"""Random configurations, pictures and label maps: understood, or told in one line each."""

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
from densemtl.data.datasets.folder_labels import DEFAULT_ENCODINGS, LabelSpec
from densemtl.errors import DataError
from densemtl.io import images
from tests.helpers import random_configs, random_runs
from tests.helpers.experiments import write_tiny_config

ACCEPTED, REPORTED_IN_LINES = "accepted, and read back the same", "told in lines that say where"
STEPPED, REPORTED_IN_ONE_LINE = "built, trained a step and validated", "told in one line each"
DECODED, IN_RANGE = "decoded", "read, all in range or void"
TYPES = (
    *("uint8", "int16", "uint16", "int64", "float16", "float32", "float64", "bool", "complex64"),
)
SHAPES = (
    *((6, 8), (6, 8, 1), (1, 6, 8), (6, 8, 3), (3, 6, 8), (6, 8, 4)),
    *((0, 8), (48,), (), (2, 2, 2, 2, 2)),
)
LIMITS = (1.0, 10.0, 300.0, 1e9)


def iter_rows(scratch: Path, num_configs: int, rng: random.Random) -> Iterator[Row]:
    """As many pictures and label maps as configurations, and a third as many steps."""
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
        found = random_configs.load_outcome(file, text, overrides)
        if isinstance(found, ExperimentConfig):
            return (
                ACCEPTED
                if random_configs.is_saved_unchanged(found, file)
                else "read back differently"
            )
        return REPORTED_IN_LINES if random_configs.is_clear_error(found, file) else "told badly"
    except Exception as error:
        return f"traceback ({type(error).__name__})"


def _try_runs(file: Path, count: int, rng: random.Random) -> Row:
    """Options of every component, far out of range too, as the training tool takes a step."""
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
        code, said = random_runs.run_one_step(overrides, file)
    except Exception as error:
        return f"traceback ({type(error).__name__})"
    if code == 0:
        return STEPPED
    return REPORTED_IN_ONE_LINE if random_runs.is_clear_error(said) else "told badly"


def _try_images(count: int, rng: random.Random) -> Row:
    """Random bytes behind the beginnings of real pictures, and headers of any size."""
    row = Row("random bytes and sizes behind JPEG and PNG headers", acceptable=(DECODED, REPORTED))
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    whole = [cv2.imencode(kind, noise)[1].tobytes() for kind in (".png", ".jpg")]
    ends = (b"IEND\xae\x42\x60\x82", b"\xff\xda\xff\xd9", b"")
    for _ in range(count):
        start = rng.choice(whole)
        data = start[: rng.choice((2, 4, 8, 33, 160, 400))] + rng.randbytes(rng.randint(0, 300))
        data = rng.choice((data + rng.choice(ends), _change_size(start, rng)))
        row.add(_classify_image(data), data.hex())
    return row


def _change_size(data_of_image: bytes, rng: random.Random) -> bytes:
    """A picture that claims another size."""
    data, most = bytearray(data_of_image), 2 ** rng.randint(1, 31)
    if data_of_image.startswith(b"\x89PNG"):
        data[16:24] = struct.pack(">II", rng.randrange(most), rng.randrange(most))
    else:
        place = data_of_image.index(b"\xff\xc0") + 5
        most = min(most, 2**16)
        data[place : place + 4] = struct.pack(">HH", rng.randrange(most), rng.randrange(most))
    return bytes(data)


def _classify_image(data: bytes) -> str:
    try:
        found = images.decode_image(data, cv2.IMREAD_UNCHANGED, "a.png")
    except DataError as error:
        return REPORTED if _is_error_about(error, "a.png") else "told badly"
    except Exception as error:
        return f"traceback ({type(error).__name__})"
    return DECODED if found.nbytes <= 6 * images.MAX_PIXELS else "too large"


def _is_error_about(error: Exception, name: str) -> bool:
    return str(error).startswith(f"{name}: ") and "\n" not in str(error)


def _try_labels(file: Path, count: int, rng: random.Random) -> Row:
    """Arrays of every type and shape, with values far out of range, read as every kind of label."""
    row = Row("label maps of random types, shapes and values", acceptable=(IN_RANGE, REPORTED))
    ways = list(product(sorted(set(DEFAULT_ENCODINGS.values())), TYPES, SHAPES, LIMITS))
    values = np.random.default_rng(rng.randrange(2**31))
    for number in range(count):
        stored, kind, shape, limit = rng.choice(ways)
        maps = LabelSpec(
            files=".", encoding=stored, class_names=["a", "b", "c"], ignore_values=(7,)
        )
        array = values.normal(0, limit, shape) + (limit if number % 2 else 0)
        array = np.where(values.random(shape) < 0.02, rng.choice((np.nan, np.inf, 1)), array)
        with np.errstate(all="ignore"):
            np.save(file, array.astype(kind))
        row.add(_classify_label(maps, stored, file), f"{stored} {kind} {shape} {limit}")
    return row


def _classify_label(spec: LabelSpec, encoding: Any, file: Path) -> str:
    try:
        found = spec.make_reader("task")(file)
    except DataError as error:
        return REPORTED if _is_error_about(error, str(file)) else f"told badly: {error}"
    except Exception as error:
        return f"traceback ({type(error).__name__})"
    if encoding in ("classes", "binary") and found.dtype == np.uint8:
        good = bool(np.isin(found, (0, 1, 2, 255)).all())
    else:
        good = found.dtype == np.float32 and not bool(np.isinf(found).any())
    return IN_RANGE if good else "out of range"
