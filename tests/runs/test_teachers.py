"""Teachers: labels, exact resume, one loading per model, messages and errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from densemtl.config.experiment import ExperimentConfig
from densemtl.config.input_paths import BEST_NAME
from densemtl.data.splits import Splits
from densemtl.engine.trainer import train
from densemtl.engine.weights_file import load_weights, save_weights
from densemtl.errors import ConfigError
from densemtl.factory import build_model, build_splits, build_tasks
from densemtl.inference.predictor import Predictor
from densemtl.runs import teachers
from densemtl.runs.teacher_cache import fill_missing_labels
from densemtl.runs.teachers import load_teachers
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from densemtl.types import Size
from tests.engine.test_trainer import assert_equal_runs
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.mixed_sets import make_data, make_mixed_experiment, make_sets

FEATURES = ("loader.cache=features", "backbone.freeze=all", "augment.num_views=2")


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that saves a network with random weights as a run."""
    root = tmp_path_factory.mktemp("runs")

    def save_run(name: str, *overrides: str, seed: int = 0) -> Path:
        file = root / name / BEST_NAME
        if not file.exists() or seed:
            experiment = make_tiny_experiment(*overrides)
            torch.manual_seed(seed)
            model = build_model(experiment, build_tasks(experiment))
            file.parent.mkdir(exist_ok=True)
            save_weights(file, model, experiment.to_yaml())
        return file.parent

    return save_run


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., ExperimentConfig]:
    """Return a function that makes an experiment with three sets of five images."""
    counts = {"rooms": 2, "depths": 2, "others": 1}
    data = make_data(make_sets(**{name: {"train_images": n} for name, n in counts.items()}))

    def make_experiment(*overrides: str) -> ExperimentConfig:
        cache = f"loader.cache_dir={tmp_path / 'cache'}"
        return make_mixed_experiment("train.eval_every=2", cache, *overrides, data=data)

    return make_experiment


def teach(run: Path, threshold: float = 0.0) -> str:
    """Return the override with a teacher of two of the three tasks."""
    return f"teachers={{semseg: {{run: {run}, threshold: {threshold}}}, depth: {run}}}"


def load(experiment: ExperimentConfig) -> tuple[ExperimentConfig, list[teachers.Teacher]]:
    return load_teachers(experiment, make_execution_config(experiment.train, "cpu"))


def fill(experiment: ExperimentConfig) -> tuple[Splits, list[str]]:
    """Return the splits with the labels of teachers, and the warnings."""
    experiment, loaded = load(experiment)
    splits, warnings = fill_missing_labels(experiment, build_splits(experiment), loaded)
    return splits, [str(warning) for warning in warnings]


def test_labels_are_predictions_and_existing_ones_stay(
    save: Callable[..., Path], make: Callable[..., ExperimentConfig]
) -> None:
    run = save("teacher")
    plain, filled = build_splits(make()), fill(make(teach(run)))[0]
    predictor = Predictor.from_run(run, device="cpu")
    num_filled = 0
    for index in range(len(plain.train)):
        original, sample = plain.train[index], filled.train[index]
        predicted = predictor.predict_sample(original.image)
        predicted["depth"] = np.where(predicted["depth"] > 0, predicted["depth"], np.nan)
        expected = {**predicted, **original.targets}
        assert sample.targets.keys() == expected.keys()
        num_filled += len(expected) - len(original.targets)
        for task, label in sample.targets.items():
            np.testing.assert_allclose(label, expected[task], rtol=1e-3)
    assert num_filled == 3 + 3
    assert filled.val[0].targets.keys() == plain.val[0].targets.keys()


@pytest.mark.parametrize(("size", "stored"), [((16, 24), (16, 24)), ((64, 48), (32, 40))])
def test_labels_of_large_images_have_the_input_size_of_the_teacher(
    save: Callable[..., Path], make: Callable[..., ExperimentConfig], size: Size, stored: Size
) -> None:
    """Images that are larger than the padded input of a teacher are resized."""
    run = save(f"size{size[0]}", f"input={{size: {list(size)}, fit: pad}}")
    filled = fill(make(teach(run)))[0].train
    (store,) = filled._stores  # type: ignore[attr-defined]
    assert store._load_arrays(0)["label semseg"].shape == stored
    assert filled[0].targets["semseg"].shape == (32, 40)


def test_resume_is_bit_exact_even_if_cached_labels_and_features_are_lost(
    save: Callable[..., Path], make: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    experiment = make(teach(save("teacher"), 0.07), *FEATURES)
    execution = make_execution_config(experiment.train, "cpu")

    def train_run(name: str, max_steps: int | None = None) -> None:
        splits, _ = fill(experiment)
        train(build_training_run(experiment, splits, tmp_path / name, execution), max_steps)

    train_run("whole")
    train_run("resumed", max_steps=3)
    files = sorted((tmp_path / "cache").rglob("*.npy"))
    before = [file.read_bytes() for file in files]
    assert len(files) == 5 + 2 * 5 + 6  # labels, features of two views, and of validation images
    for file in files[::2]:
        file.unlink()
    train_run("resumed")
    assert_equal_runs(tmp_path / "whole", tmp_path / "resumed")
    assert [file.read_bytes() for file in files] == before


def test_run_records_its_teachers_and_resumes_only_with_them(
    save: Callable[..., Path], make: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    """The weights of the run do not contain those of the teacher."""
    run = save("changed")
    experiment = make(teach(run, 1.0))
    (own,) = {teacher.loaded.weights_hash for teacher in load(experiment)[1]}
    results = train_experiment(experiment, tmp_path / "run", "cpu", max_steps=1)
    assert results.run["teachers"] == f"semseg {own}, depth {own}"
    assert any(line.startswith("teachers.semseg: labels of 3") for line in results.warnings)
    assert results.config_hash == experiment.compute_config_hash()
    saved = load_weights(tmp_path / "run" / BEST_NAME).tensors
    assert saved.keys() == build_model(make(), build_tasks(make())).state_dict().keys()
    save("changed", seed=1)
    with pytest.raises(ConfigError, match=r"teachers\.depth\.weights_hash is \w+ there, ") as error:
        train_experiment(experiment, tmp_path / "run", "cpu")
    assert "\n" not in str(error.value)


def test_two_tasks_of_one_model_load_it_once(
    save: Callable[..., Path],
    make: Callable[..., ExperimentConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = save("first"), save("second", seed=1)
    loaded = []
    load_model = teachers.load_trained_model

    def count(path: Path, **options: str) -> object:
        loaded.append(path)
        return load_model(path, **options)

    monkeypatch.setattr(teachers, "load_trained_model", count)
    same = (
        f"{{semseg: {first}, depth: {first / BEST_NAME}, things: {{run: {second}, task: semseg}}}}"
    )
    assert [list(each.tasks) for each in load(make(f"teachers={same}"))[1]] == [
        ["semseg", "depth"],
        ["things"],
    ]
    assert loaded == [first / BEST_NAME, second / BEST_NAME]


def test_custom_classes_of_a_teacher_must_be_allowed(
    save: Callable[..., Path], make: Callable[..., ExperimentConfig]
) -> None:
    run = save("custom", "decoder.name=densemtl.decoders.hard_sharing:HardSharing")
    with pytest.raises(ConfigError, match=r"teachers\.depth: .* trust_custom_code"):
        load(make(f"teachers.depth={run}"))
    trusted = f"teachers={{depth: {{run: {run}, trust_custom_code: true}}}}"
    assert len(load(make(trusted))[1]) == 1


def test_user_is_informed_how_much_is_filled(
    save: Callable[..., Path], make: Callable[..., ExperimentConfig], capsys: pytest.CaptureFixture
) -> None:
    run = save("teacher")
    data = {"name": "synthetic", "size": [32, 40], "train_images": 2}
    experiment = make_tiny_experiment(f"data={data}", teach(run))
    experiment = experiment.model_copy(update={"loader": make().loader})
    assert fill(experiment)[1] == []
    text = "teachers.semseg: every training image has a label; none is filled\n"
    assert text in capsys.readouterr().out
    assert fill(make(teach(run)))[1] == []
    text = "teachers.semseg: labels of 3 of 5 training images are predicted; 100.0% of their"
    assert text in capsys.readouterr().out
    (warning,) = fill(make(teach(run, 0.99)))[1]
    assert warning == (
        "teachers.semseg: labels of 3 of 5 training images are predicted; 0.0% of their pixels are"
        " used: choose another teacher, or lower teachers.semseg.threshold (0.99)"
    )
    with pytest.raises(ConfigError, match=r"labels of semseg, depth may need 1\.92e-05 GB in "):
        fill(make(teach(run), "loader.cache_max_gb=1e-5"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{depht: RUN}", "teachers.depht: no task 'depht', did you mean 'depth'?"),
        ("{depth: RUN/x}", "teachers.depth: RUN/x: no such file or folder; "),
        ("{things: RUN}", "does not predict 'things'; for `task`, choose from depth, semseg"),
        ("{depth: {run: RUN, task: semseg}}", "other labels: Semseg, here Depth; choose a teacher"),
        ("{depth: {run: RUN, threshold: 0.5}}", "a task without classes has no threshold; remove"),
        ("{things: {run: FEW, task: semseg}}", "class 1 is 'chair', here 'floor'; choose a "),
        ("{things: {run: FEW, task: scene}}", "1 classes or channels, here 15; choose a teacher"),
        ("{depth: {run: RUN, weights_hash: a}}", ") than `weights_hash` (a); use the file of that"),
        ("{depth: BANDS}", "takes images of 4 channels, but those of data have 3; choose another"),
    ],
)
def test_unsuitable_teacher_is_one_line(
    save: Callable[..., Path],
    make: Callable[..., ExperimentConfig],
    value: str,
    message: str,
) -> None:
    run = save("RUN")
    if "FEW" in value:
        names = ["wall", "chair"] if "semseg" in value else ["wall"]
        few = save(f"FEW{len(names)}", f"tasks=[{{name: semseg, class_names: {names}}}]")
        value = value.replace("scene", "semseg").replace("FEW", str(few))
    if "BANDS" in value:
        data = "{name: folder, root: /x, images: x, channels: 4, labels: {depth: {files: d}}}"
        channels = ("backbone.mean=[0, 0, 0, 0]", "backbone.std=[1, 1, 1, 1]")
        bands = save("BANDS", f"data={data}", "tasks=[depth]", *channels)
        value = value.replace("BANDS", str(bands))
    value = value.replace("RUN", str(run))
    with pytest.raises(ConfigError) as error:
        load(make(f"teachers={value}"))
    assert message.replace("RUN", str(run)) in str(error.value)
    assert str(error.value).startswith("teachers.")
    assert "\n" not in str(error.value)


def test_configuration_hash_depends_on_teachers_but_not_on_their_recorded_weights() -> None:
    plain, taught, strict = (
        make_tiny_experiment(*overrides)
        for overrides in ((), ("teachers={depth: run}",), ("teachers={semseg: run}",))
    )
    assert "teachers" not in plain.to_semantic_dict()
    hashes = {each.compute_config_hash() for each in (plain, taught, strict)}
    assert len(hashes) == 3
    recorded = make_tiny_experiment("teachers={depth: {run: run, weights_hash: a}}")
    assert recorded.compute_config_hash() == taught.compute_config_hash()
    assert make_tiny_experiment("teachers={depth: run}", "teachers=none") == plain
    single = taught.to_single_task("depth")  # trains on true labels only
    assert single.compute_config_hash() == plain.to_single_task("depth").compute_config_hash()
