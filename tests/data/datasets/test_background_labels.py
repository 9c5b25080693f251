"""Sets whose training images are background for a task of another set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from densemtl.data.check import check_sets
from densemtl.data.datasets.background_labels import BackgroundLabel
from densemtl.errors import ConfigError
from densemtl.factory import build_splits, build_tasks, build_train_loader, save_task_defaults
from densemtl.types import IGNORE_INDEX
from tests.helpers.mixed_sets import make_data, make_mixed_experiment, make_sets

TASKS = ["semseg", "depth", "human_parts", "saliency"]

EXCLUDED = {"saliency": {"semseg": ["wall", "ceiling"]}}


def make_experiment(background: Any, tasks: list[str] = TASKS) -> Any:
    sets = make_sets(
        rooms={"background": background, "tasks": ["semseg"]},
        others={"tasks": ["human_parts", "saliency"]},
    )
    return make_mixed_experiment(data=make_data(sets), tasks=tasks)


def test_excluded_and_unlabeled_pixels_are_ignored() -> None:
    semseg = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)
    label = BackgroundLabel({"semseg": [1, 3]}).make({"semseg": semseg}, (2, 3))
    np.testing.assert_array_equal(label, [[0, 255, 0], [255, 255, 0]])
    assert label.dtype == np.uint8
    assert (BackgroundLabel({"semseg": [1]}).make({}, (2, 3)) == IGNORE_INDEX).all()


def test_training_images_get_the_label_and_validation_images_do_not() -> None:
    splits = build_splits(make_experiment({"human_parts": {}, **EXCLUDED}))
    for index, name in enumerate(splits.train.ids):
        sample = splits.train[index]
        if name.startswith("rooms/"):
            assert set(sample.targets) == {"semseg", "human_parts", "saliency"}
            assert (sample.targets["human_parts"] == 0).all()
            names = build_tasks(make_experiment([]))[0].class_names  # type: ignore[attr-defined]
            excluded = [names.index("wall"), names.index("ceiling"), IGNORE_INDEX]
            is_excluded = np.isin(sample.targets["semseg"], excluded)
            assert 0 < is_excluded.sum() < is_excluded.size
            expected = np.where(is_excluded, IGNORE_INDEX, 0)
            np.testing.assert_array_equal(sample.targets["saliency"], expected)
    assert splits.train.task_sets["saliency"] == ("others", "rooms")
    assert splits.val.task_sets["saliency"] == ("others",)
    for index, name in enumerate(splits.val.ids):
        if name.startswith("rooms/"):
            assert set(splits.val[index].targets) == {"semseg"}


def test_labels_that_only_exclude_pixels_are_not_targets() -> None:
    experiment = make_experiment(EXCLUDED, tasks=["saliency"])
    train = build_splits(experiment).train
    ids = {name.split("/")[0] for name in train.ids}
    assert ids == {"rooms", "others"}
    assert all(set(train[index].targets) == {"saliency"} for index in range(len(train)))
    loader = build_train_loader(experiment, train, build_tasks(experiment), False)
    assert set(next(iter(loader)).targets) == {"saliency"}


@pytest.mark.parametrize("tasks", [TASKS, ["human_parts"]])
def test_data_check_examines_the_labels_of_files_only(tasks: list[str]) -> None:
    experiment = make_experiment(["human_parts"], tasks)
    splits = build_splits(experiment)
    checks = check_sets(splits.train, splits.val, build_tasks(experiment))
    assert set(checks) == ({"rooms", "depths", "others"} if tasks == TASKS else {"rooms", "others"})
    assert set(checks["rooms"].train.tasks) == ({"semseg"} if tasks == TASKS else set())
    assert not [each for each in checks["rooms"].warnings if each.task == "human_parts"]


def test_fingerprints_and_hashes_depend_on_the_key() -> None:
    without, with_key = make_experiment([]), make_experiment(["human_parts"])
    unset = make_sets(others={"tasks": ["human_parts", "saliency"]})
    never = make_mixed_experiment(data=make_data(unset), tasks=TASKS)
    assert save_task_defaults(without).compute_config_hash() != (
        save_task_defaults(with_key).compute_config_hash()
    )
    splits = [build_splits(each) for each in (without, with_key, never)]
    assert splits[0].train.fingerprint() == splits[2].train.fingerprint()
    assert splits[0].train.fingerprint() != splits[1].train.fingerprint()
    assert splits[0].val.fingerprint() == splits[1].val.fingerprint()


@pytest.mark.parametrize(
    ("background", "message"),
    [
        (["clothing"], r"rooms\.background\.clothing: no set has labels of 'clothing'"),
        (["salience"], r"background\.salience: .*did you mean 'saliency'"),
        (["semseg"], r"background\.semseg: the set has labels of 'semseg'"),
        (["depth"], r"background\.depth: class 0 of 'depth' is not 'background'"),
        (
            {"saliency": {"semseg": ["wal"]}},
            r"background\.saliency\.semseg: 'semseg' has no class 'wal', did you mean 'wall'",
        ),
        ({"saliency": {"depth": ["far"]}}, r"saliency\.depth: the set has no label 'depth'"),
        ({"saliency": {"semseg": "wall"}}, r"background\.saliency\.semseg"),
        ("saliency", r"rooms\.background"),
    ],
)
def test_wrong_background_is_one_line(background: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make_experiment(background)
    assert "\n" not in str(error.value)


def test_misspelled_keys_of_a_set_are_named() -> None:
    sets = make_sets(rooms={"backgrund": ["saliency"]})
    message = r"data\.sets\.rooms\.backgrund: unknown key, did you mean 'background'"
    with pytest.raises(ConfigError, match=message):
        make_mixed_experiment(data=make_data(sets))
