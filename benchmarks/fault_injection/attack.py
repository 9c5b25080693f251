"""Fault injection: files and requests of an attacker, which must be rejected or be harmless.

Every case is read in this process as the commands read it. Importing the module `canary_module`,
unpickling or running a command would create a file, which counts as executed code; so does any
other new file outside of the attacker's folder. Data is lost if a file in `precious` changes.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attack_files
import yaml
from result_table import Row

from densemtl import registry
from densemtl.config.experiment import load_experiment, load_saved
from densemtl.data.datasets.folder_labels import LabelSpec
from densemtl.data.datasets.shards import ShardsDataset
from densemtl.engine.checkpoint import read_checkpoint, save_checkpoint
from densemtl.engine.loading import load_trained_model
from densemtl.engine.weights_file import save_weights
from densemtl.errors import UserError
from densemtl.factory import build_dataset, build_model, build_tasks
from densemtl.io import arrays
from tests.helpers.experiments import make_tiny_experiment

REJECTED, ACCEPTED = "rejected with one line", "accepted as valid"
EXECUTED, LOST = "code executed, or a file written elsewhere", "data lost"
ANSWERED = "answered without an error of the server"

Case = tuple[str, Callable[[], object]]
"""Description of a case, and the function that reads it."""


def iter_rows(scratch: Path, count: int, rng: random.Random) -> Iterator[Row]:
    """Yield one row per kind of input, with `count` cases each."""
    guard = _Guard(scratch / "outside")
    folder = scratch / "files"
    folder.mkdir()
    makers = {
        "weights files": _iter_weights,
        "states of training (`state.pt`)": _iter_states,
        "configurations": _iter_configs,
        "arrays and images": _iter_arrays,
        "shards and their index": _iter_archives,
        "requests to the web page": _iter_requests,
    }
    for title, make in makers.items():
        row = Row(f"attack by {title}", acceptable=(REJECTED, ACCEPTED, ANSWERED))
        cases = make(folder, guard.canary, rng)
        for _ in range(count):
            text, read = next(cases)
            row.add(guard.classify(read), text[:2000])
        yield row


class _Guard:
    """Files that an attack must not create or change."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self.canary = folder, folder / "canary"
        (folder / "precious").mkdir()
        for number in range(5):
            (folder / "precious" / f"{number}.txt").write_text(f"keep {number}")
        module = (
            f"from pathlib import Path\nPath({str(self.canary)!r}).touch()\nclass Canary: ...\n"
        )
        (folder / "canary_module.py").write_text(module)
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        self._before = self._list_files()

    def classify(self, read: Callable[[], object]) -> str:
        sys.modules.pop("canary_module", None)
        try:
            outcome = ANSWERED if isinstance(read(), int) else ACCEPTED
        except UserError as error:
            lines = str(error).splitlines()
            outcome = REJECTED if lines and max(map(len, lines)) < 6000 else "unclear message"
        except Exception as error:
            outcome = f"traceback ({type(error).__name__}: {str(error)[:80]})"
        after = self._list_files()
        if after == self._before:
            return outcome
        lost = any(after.get(name) != text for name, text in self._before.items())
        return LOST if lost else EXECUTED

    def _list_files(self) -> dict[str, str]:
        return {str(file): file.read_text() for file in self._folder.rglob("*") if file.is_file()}


def _iter_weights(folder: Path, canary: Path, rng: random.Random) -> Iterator[Case]:
    experiment = make_tiny_experiment("tasks=[semseg, depth]")
    model = build_model(experiment, build_tasks(experiment), pretrained=False)
    file = folder / "best.safetensors"
    while True:
        values = yaml.safe_load(experiment.to_yaml())
        text = attack_files.change_config(values, canary, rng)
        save_weights(file, model, text)
        if rng.random() < 0.2:
            file.write_bytes(attack_files.damage(file.read_bytes(), rng))

        def read() -> object:
            loaded = load_trained_model(file, device="cpu")
            return build_dataset(loaded.experiment, "val")[0]

        yield text, read


def _iter_states(folder: Path, canary: Path, rng: random.Random) -> Iterator[Case]:
    from tests.helpers.train_states import make_train_state

    while True:
        state = make_train_state()
        state.save(folder, "x: 1")
        content = attack_files.change_state(folder / "last" / "state.pt", canary, rng)
        if isinstance(content, bytes):
            (folder / "last" / "state.pt").write_bytes(content)
        else:
            save_checkpoint(folder, state.model, content, "x: 1")

        def read() -> object:
            read_checkpoint(folder)
            make_train_state().restore(folder)
            return None

        yield repr(content), read


def _iter_configs(folder: Path, canary: Path, rng: random.Random) -> Iterator[Case]:
    values = yaml.safe_load(make_tiny_experiment().to_yaml())
    file = folder / "run.yaml"
    while True:
        text = attack_files.change_config(yaml.safe_load(yaml.safe_dump(values)), canary, rng)
        text = rng.choice((text, text, attack_files.make_yaml_attack(text, canary, rng)))
        file.write_text(text, errors="replace")

        def read(text: str = text) -> object:
            with registry.custom_code(False):
                load_experiment(file)
            return load_saved(text, file, restrict=True)

        yield text, read


def _iter_arrays(folder: Path, canary: Path, rng: random.Random) -> Iterator[Case]:
    secret = folder / "secret.h5"
    while True:
        file = attack_files.write_array(folder, secret, canary, rng)
        kind = rng.choice(("classification", "binary", "regression", "depth", "direction"))
        spec = LabelSpec(files=".", kind=kind, class_names=["a", "b"])
        reader = spec.make_reader("task", folder)
        readers = (arrays.read_array, arrays.read_image, arrays.read_split_list, reader)
        yield str(file), partial(rng.choice(readers), file)


def _iter_archives(folder: Path, canary: Path, rng: random.Random) -> Iterator[Case]:
    while True:
        root = attack_files.write_shards(folder / "shards", canary, rng)

        def read(root: Path = root) -> object:
            with registry.custom_code(False):
                dataset = ShardsDataset("train", ["semseg", "depth"], root=str(root))
                ShardsDataset.task_defaults(root=str(root))
                return [dataset[index] for index in range(len(dataset))]

        yield str(root), read


def _iter_requests(folder: Path, canary: Path, rng: random.Random) -> Iterator[Case]:
    del folder
    while True:
        request = attack_files.make_request(canary, rng)

        def read(request: Any = request) -> int:
            status = attack_files.send_request(request)
            if status >= 500:
                raise RuntimeError(f"status {status}")
            return status

        yield repr(request), read
