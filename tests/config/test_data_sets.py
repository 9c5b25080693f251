"""The section `data` with several sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from densemtl.config import yaml_loader
from densemtl.config.experiment import load_experiment, load_saved
from densemtl.config.saved_settings import UNCONFIRMED, restrict_saved
from densemtl.config.sections import AugmentConfig
from densemtl.config.set_config import SetConfig
from densemtl.errors import ConfigError
from tests.helpers.experiments import TINY_CONFIG
from tests.helpers.mixed_sets import make_data, make_mixed_experiment, make_sets

LIST = [
    {"name": "synthetic", "tasks": ["semseg"]},
    {"name": "synthetic", "alias": "other", "tasks": ["depth"]},
]
NAMED = {
    "synthetic": {"name": "synthetic", "tasks": ["semseg"]},
    "other": {"name": "synthetic", "tasks": ["depth"]},
}
TASKS = "tasks=[semseg, depth]"


def test_list_of_sets_equals_dictionary() -> None:
    listed = make_mixed_experiment(TASKS, data=make_data(LIST, weights=[1, 2]))
    named = make_mixed_experiment(
        TASKS, data=make_data(NAMED, weights={"synthetic": 1, "other": 2})
    )
    assert listed == named
    assert listed.compute_config_hash() == named.compute_config_hash()


def test_value_of_one_set_is_changed_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    config = {**TINY_CONFIG, "data": make_data(LIST)}
    file.write_text(yaml.safe_dump(config))
    experiment = load_experiment(file, ["data.sets.other.seed=5"])
    assert experiment.data.options["sets"]["other"] == {**NAMED["other"], "seed": 5}
    saved = load_saved(experiment.to_yaml(), file, ["data.sets.other.seed=6"], restrict=True)
    assert saved.data.options["sets"]["other"]["seed"] == 6


def test_roots_of_sets_do_not_change_the_hash() -> None:
    def hash_of(root: str, classes: int) -> str:
        sets = {
            **make_sets(),
            "nyud": {
                "name": "nyud",
                "root": root,
                "num_classes": classes,
                "tasks": {"normals": "normals"},
            },
        }
        return make_mixed_experiment(data=make_data(sets)).compute_config_hash()

    assert hash_of("/a", 40) == hash_of("/b", 40) != hash_of("/a", 13)


@pytest.mark.parametrize("kind", [list, dict])
def test_saved_settings_of_sets_are_restricted(kind: type) -> None:
    shards = {"name": "shards", "root": "https://example.org", "cache_dir": "/etc"}
    sets = [shards] if kind is list else {"a": shards}
    data = restrict_saved({"data": {"name": "mixed", "sets": sets}})["data"]
    (only,) = data["sets"] if kind is list else data["sets"].values()
    assert only == {"name": "shards", "root": f"{UNCONFIRMED}https://example.org"}


WRONG = [
    ([{"name": "synthetic"}, {"name": "synthetic"}], {}, "another set is called 'synthetic'"),
    (LIST, {"weights": [1]}, r"data\.weights: 1 weights for 2 sets"),
    (LIST, {"weights": [1, -2]}, r"data\.weights\.other: .*greater than 0"),
    (LIST, {"epoch_images": 0}, r"data\.epoch_images: "),
    ({}, {}, r"data\.sets: .*at least 1"),
    ({"a": {"name": "nope"}}, {}, r"data\.sets\.a\.name: no 'nope'"),
    ({"a": {"name": "mixed", "sets": LIST}}, {}, r"data\.sets\.a\.name: a set cannot be 'mixed'"),
    ({"a": {"name": "synthetic", "sede": 1}}, {}, r"data\.sets\.a\.sede: .*'seed'"),
    ({"a": {"name": "nyud"}}, {}, r"data\.sets\.a\.root: must be given"),
    ({"a": {"root": "x"}}, {}, r"data\.sets\.a\.name: must be given"),
    ({"a/b": {"name": "synthetic"}}, {}, r"data\.sets\.a/b"),
    ({"a": {"name": "synthetic", "augment": {"flip": 1}}}, {}, r"a\.augment\.flip: .*flip_prob"),
    (
        {"a": {"name": "synthetic", "augment": {"num_views": 2}}},
        {},
        r"data\.sets\.a\.augment: num_views is the same for all sets: set augment\.num_views",
    ),
    ({"a": {"name": "synthetic", "tasks": ["sky"]}}, {}, r"data\.sets\.a\.tasks: .* no task 'sky'"),
    ({"a": {"name": "synthetic", "tasks": []}}, {}, r"data\.sets\.a\.tasks: "),
    ({"a": {"name": "synthetic", "tasks": {"semseg": "x", "edge": "x"}}}, {}, "the same name"),
    ({"a": {"name": "synthetic", "tasks": ["depth"]}}, {}, "the dataset has no task 'semseg'"),
    ({"a": {"name": "builtins:dict"}}, {}, r"data\.sets\.a\.name: "),
    ("text", {}, r"data\.sets: "),
    ([1], {}, r"data\.sets: "),
]


@pytest.mark.parametrize(("sets", "options", "message"), WRONG)
def test_wrong_sets_are_errors_with_their_key(sets: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make_mixed_experiment(TASKS, data=make_data(sets, **options))
    assert all(len(line) < 400 for line in str(error.value).splitlines())


def test_inherited_sets_are_merged(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**TINY_CONFIG, "data": make_data(LIST)}))
    child = {"base": "base.yaml", "data": {"sets": {"other": {"seed": 4}}}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(child))
    sets = yaml_loader.load_config(tmp_path / "run.yaml").values["data"]["sets"]
    assert sets == {**NAMED, "other": {**NAMED["other"], "seed": 4}}


def test_augmentation_changes_only_the_given_values() -> None:
    config = SetConfig(name="x", augment={"flip_prob": 0, "color_jitter": None})
    shared = AugmentConfig(flip_prob=1, scale_range=(1, 2), color_jitter={})
    assert config.adapt_augment(shared) == AugmentConfig(flip_prob=0, scale_range=(1, 2))
    assert SetConfig(name="x").adapt_augment(shared) is shared
