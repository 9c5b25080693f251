"""Several datasets with different labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import densemtl
from densemtl.config.data_sets import name_sets
from densemtl.config.set_config import SetConfig
from densemtl.data.datasets.mixed import MixedDataset
from densemtl.data.datasets.synthetic import SyntheticDataset
from densemtl.errors import ConfigError, DataError
from densemtl.factory import (
    build_dataset,
    build_splits,
    build_tasks,
    build_train_loader,
    get_task_defaults,
    save_task_defaults,
)
from densemtl.runs.data_check import check_before_training
from densemtl.types import Split
from tests.helpers.mixed_sets import (
    MIXED_TASKS,
    make_data,
    make_mixed_experiment,
    make_sets,
    write_folder_set,
)


def make_dataset(split: Split = "train", tasks: Any = MIXED_TASKS, **options: Any) -> MixedDataset:
    sets = {name: SetConfig(**each) for name, each in make_sets().items()}
    return MixedDataset(split, tasks, **{"sets": sets, **options})


def test_each_image_has_the_labels_of_its_set() -> None:
    dataset = make_dataset()
    assert len(dataset) == len(set(dataset.ids)) == 12
    labels = {name.split("/")[0]: set(dataset[i].targets) for i, name in enumerate(dataset.ids)}
    assert labels == {"depths": {"depth"}, "others": {"things"}, "rooms": {"semseg"}}
    assert dataset.task_sets == {"semseg": ("rooms",), "depth": ("depths",), "things": ("others",)}


def test_samples_are_those_of_the_sets() -> None:
    dataset = make_dataset("val")
    single = SyntheticDataset("val", ["semseg"], size=(32, 40), val_images=2, seed=2)
    sample = dataset[dataset.ids.index("others/val00001")]
    np.testing.assert_array_equal(sample.image, single[1].image)
    np.testing.assert_array_equal(sample.targets["things"], single[1].targets["semseg"])
    assert dataset[-1].id == dataset.ids[-1]
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_order_of_the_sets_does_not_matter() -> None:
    sets = {name: SetConfig(**each) for name, each in reversed(make_sets().items())}
    assert make_dataset(sets=sets).ids == make_dataset().ids
    one, two = (
        make_mixed_experiment(data=make_data(dict(items)))
        for items in (make_sets().items(), reversed(make_sets().items()))
    )
    assert one.compute_config_hash() == two.compute_config_hash()


def test_renamed_labels_are_a_task_of_the_same_kind() -> None:
    experiment = make_mixed_experiment()
    semseg, _, things = build_tasks(experiment)
    assert type(semseg) is type(things)
    assert (things.name, things.channels) == ("things", semseg.channels)


def test_loader_fills_the_tasks_without_label() -> None:
    experiment = make_mixed_experiment("loader.batch_size=6")
    tasks = build_tasks(experiment)
    loader = build_train_loader(experiment, build_splits(experiment).train, tasks, False)
    ids = []
    for batch in loader:
        for row, name in enumerate(batch.ids):
            labeled = {
                task.name: task.compute_valid_mask(batch.targets[task.name][row : row + 1])
                for task in tasks
            }
            expected = {"rooms": "semseg", "depths": "depth", "others": "things"}
            assert [task for task, mask in labeled.items() if mask.any()] == [
                expected[name.split("/")[0]]
            ]
            ids.append(name)
    assert len(set(ids)) == 12


def test_single_task_run_uses_the_sets_of_its_task() -> None:
    experiment = make_mixed_experiment()
    whole = build_splits(experiment)
    single = build_splits(experiment.to_single_task("depth"))
    assert {name.split("/")[0] for name in single.train.ids} == {"depths"}
    assert single.val.fingerprint() == whole.val.fingerprint()
    assert single.train.fingerprint() == whole.train.fingerprint()
    cached = build_splits(make_mixed_experiment("loader.cache=memory")).select_tasks(["depth"])
    assert cached.train.ids == single.train.ids
    assert cached.train.mixture == single.train.mixture
    assert build_splits(experiment).train.ids == whole.train.ids


def test_fingerprint_depends_on_labels_and_images() -> None:
    def fingerprint(**changes: Any) -> str:
        data = make_data(make_sets(**changes))
        return build_dataset(
            make_mixed_experiment("tasks=[semseg]", data=data), "val"
        ).fingerprint()

    found = {
        fingerprint(),
        fingerprint(depths={"val_images": 3}),
        fingerprint(depths={"tasks": ["depth", "normals"]}),
        fingerprint(others={"seed": 9}),
    }
    assert len(found) == 4


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_sets_are_cached_on_their_own(cache: str, tmp_path: Path) -> None:
    overrides = (f"loader.cache={cache}", f"loader.cache_dir={tmp_path}")
    plain, cached = (
        build_dataset(make_mixed_experiment(*options), "train") for options in ((), overrides)
    )
    assert cached.ids == plain.ids
    for index in (0, 5, 11):
        np.testing.assert_array_equal(cached[index].image, plain[index].image)
        assert cached[index].targets.keys() == plain[index].targets.keys()
    assert len(list(tmp_path.iterdir())) == (3 if cache == "disk" else 0)


def test_corrupt_images_of_a_set_are_left_out(tmp_path: Path) -> None:
    sets = {
        "rooms": make_sets()["rooms"],
        "water": write_folder_set(tmp_path / "water", "water", np.zeros((32, 40)), 8),
    }
    data = make_data(sets, weights={"rooms": 1, "water": 1})
    names = build_dataset(make_mixed_experiment("tasks=[semseg, water]", data=data), "train").ids
    broken = next(name for name in names if name.startswith("water/"))
    (tmp_path / "water" / "images" / f"{broken.split('/')[1]}.png").write_bytes(b"x")
    options = ("tasks=[semseg, water]", "loader.on_corrupt=skip", "loader.num_workers=0")
    left = build_dataset(make_mixed_experiment(*options, data=data), "train")
    assert set(names) - set(left.ids) == {broken}
    assert sum(left.mixture.sizes) == len(names) - 1


def test_augmentation_of_a_set() -> None:
    """The set `rooms` is never flipped, and darkened; the others are always flipped."""
    sets = make_sets(rooms={"augment": {"flip_prob": 0, "color_jitter": {"brightness": 0.5}}})
    experiment = make_mixed_experiment("augment.flip_prob=1", data=make_data(sets))
    train = build_splits(experiment).train
    loader = build_train_loader(experiment, train, build_tasks(experiment), False)
    view = loader.dataset.dataset
    for index, name in enumerate(train.ids):
        raw, (sample, _) = train[index], view[0, index]
        if name.startswith("rooms/"):
            np.testing.assert_array_equal(sample.targets["semseg"], raw.targets["semseg"])
            assert (sample.image != raw.image).any()
        else:
            np.testing.assert_array_equal(sample.image, raw.image[:, ::-1])


def test_two_sets_may_label_the_same_task() -> None:
    sets = make_sets(others={"tasks": ["semseg"]})
    dataset = build_dataset(make_mixed_experiment("tasks=[semseg]", data=make_data(sets)), "val")
    assert dataset.task_sets == {"semseg": ("others", "rooms")}


def test_labels_with_other_classes_need_another_name(tmp_path: Path) -> None:
    water = write_folder_set(tmp_path, "semseg", np.zeros((32, 40)))
    data = make_data({"rooms": make_sets()["rooms"], "water": water})
    with pytest.raises(ConfigError, match=r"differ in .* of 'semseg'; .*data\.sets\.water\.tasks"):
        make_mixed_experiment("tasks=[semseg]", data=data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"rooms": 1}}, r"data\.weights: .* missing: depths, others"),
        ({"weights": {"a": 1, "rooms": 1, "depths": 1, "others": 1}}, r"weights\.a: no set 'a'"),
        ({"tasks": ["semseg", "edge"]}, "no set has labels of 'edge'"),
    ],
)
def test_wrong_options_of_the_constructor(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_dataset(**options)


@pytest.mark.parametrize("weights", [{"rooms": 1}, {"rooms": 1, "depths": 1, "other": 1}])
def test_wrong_sets_of_weights_are_errors_of_the_configuration(weights: dict[str, float]) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.weights(\.other: .* did you mean 'others'|: give)"
    ):
        make_mixed_experiment(data=make_data(weights=weights))


def test_errors_of_a_set_name_it(tmp_path: Path) -> None:
    folder = {
        "name": "folder",
        "root": str(tmp_path / "none"),
        "images": "images",
        "labels": {"water": {"files": "water", "kind": "binary"}},
    }
    data = make_data({**make_sets(), "lake": folder})
    with pytest.raises(DataError, match=r"^lake: .*data\.sets\.lake\.root") as error:
        build_splits(make_mixed_experiment(data=data))
    assert "\n" not in str(error.value)


def test_defaults_of_shards_are_saved_in_their_set(tmp_path: Path) -> None:
    from densemtl.data.datasets.shards import write_shards

    plain = SyntheticDataset("train", ["depth"], size=(32, 40), train_images=2)
    val = SyntheticDataset("val", ["depth"], size=(32, 40), val_images=2)
    write_shards([plain, val], {"depth": {}}, tmp_path, 2, None)
    sets = {"rooms": make_sets()["rooms"], "s": {"name": "shards", "root": str(tmp_path)}}
    experiment = make_mixed_experiment("tasks=[semseg, depth]", data=make_data(sets))
    saved = save_task_defaults(experiment)
    assert saved.data.options["sets"]["s"]["offers"] == {"depth": {}}
    assert saved.compute_config_hash() == experiment.compute_config_hash()
    (tmp_path / "shards.json").unlink()
    assert get_task_defaults(saved.data).keys() == {"semseg", "depth"}


def test_python_function_takes_sets() -> None:
    sets = [{"name": "nyud", "tasks": ["semseg"]}, {"name": "synthetic", "tasks": ["depth"]}]
    tasks = densemtl.create_tasks(["semseg", "depth"], data={"name": "mixed", "sets": sets})
    assert [task.channels for task in tasks] == [40, 1]
    assert name_sets({"name": "nyud", "sets": []}) == {"name": "nyud", "sets": []}


def test_sets_with_other_channels_are_an_error(tmp_path: Path) -> None:
    lake = write_folder_set(tmp_path, "water", np.zeros((32, 40)))
    sets = {**make_sets(), "lake": {**lake, "channels": 1}}
    with pytest.raises(ConfigError, match=r"data\.sets: images of .* differ in their channels"):
        make_mixed_experiment(data=make_data(sets))


def test_missing_labels_of_a_set_are_a_warning(tmp_path: Path) -> None:
    lake = write_folder_set(tmp_path, "water", np.full((32, 40), 255), 8)
    sets = {**make_sets(), "lake": {**lake, "tasks": {"water": "flood"}}}
    experiment = make_mixed_experiment(data=make_data(sets), tasks=["semseg", "flood"])
    val = build_dataset(experiment, "val").ids
    (tmp_path / "water" / f"{val[0].removeprefix('lake/')}.png").unlink()
    warnings = check_before_training(experiment, build_splits(experiment))
    missing = [str(warning) for warning in warnings if "have no water label" in str(warning)]
    assert len(missing) == 1
    assert missing[0].startswith("lake: ")
