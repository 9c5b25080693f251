"""All files in configs/: one training step on fake data with the layout of the real dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from densemtl.config.experiment import ExperimentConfig, load_experiment
from densemtl.engine import checkpoint
from densemtl.factory import build_tasks
from densemtl.runs import initial_model
from densemtl.runs.train_run import train_experiment
from tests.helpers import fake_datasets

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
RUNNABLE = [file for file in FILES if file.name != "base.yaml"]
LARGE = {"vit_base", "vit_large", "swin_large"}
OPTIMIZERS = {
    "nyud/vit_base/distill": ("adamw", 2e-5, 1e-6),
    "nyud/vit_base/sak": ("adamw", 2e-5, 1e-6),
    "pascal_context/vit_base/sak": ("adamw", 2e-5, 1e-6),
    "nyud/vit_large/mlore": ("adam", 1e-5, 1e-6),
    "nyud/vit_large/task_prompts": ("adam", 1e-5, 1e-6),
    "nyud/swin_large/mtmamba": ("adamw", 2e-5, 1e-6),
    "pascal_context/swin_large/mtmamba": ("adamw", 2e-5, 1e-6),
}
"""{recipe: optimizer, learning rate and weight decay} if they differ from those of InvPT."""

TRAINED = [
    file
    for file in RUNNABLE
    if file.parent.name not in LARGE
    and (file.parent.name != "folder" or file.stem == "example")
    and "teachers" not in file.stem
    and file.stem != "ditask"
]
"""All but those that tests/data/datasets/test_folder_configs.py tries on fakes of their layout, and
those that need other runs, gigabytes of memory or many singular value decompositions."""
SMALL = [
    "backbone.pretrained=false",
    "input.size=[32, 32]",
    "loader={batch_size: 2, eval_batch_size: 8, num_workers: 0, cache: false}",
    "train.num_vis_images=1",
    "train.channels_last=true",  # measuring both layouts takes longer than the step
    "baselines=none",
    "init_from=none",
]


def name(file: Path) -> str:
    return str(file.relative_to(CONFIGS).with_suffix(""))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return {dataset: overrides that replace it by fake data}."""
    nyud, pascal, custom = (tmp_path_factory.mktemp(kind) for kind in ("nyud", "pascal", "custom"))
    fake_datasets.write_nyud_survey(nyud)
    fake_datasets.write_pascal_context(pascal)
    fake_datasets.write_custom_folder(custom)
    return {
        "synthetic": ["data={size: [64, 64], train_images: 2, val_images: 2}"],
        "nyud": [f"data.root={nyud}"],
        "pascal_context": [f"data.root={pascal}"],
        "folder": [f"data.root={custom}"],
        "mixed": _write_mixed(tmp_path_factory, nyud),
    }


def _write_mixed(factory: pytest.TempPathFactory, nyud: Path) -> list[str]:
    """Write the sets of configs/mixed with one label each; return the overrides of their roots."""
    labels = {"bsds": ("edge", 2), "saliency": ("saliency", 2), "clothing": ("clothing", 8)}
    overrides = [f"data.sets.nyud.root={nyud}", "data.sets.nyud.derived_normals=null"]
    for set_name, (folder, count) in labels.items():
        root = factory.mktemp(set_name)
        for number in range(4):
            scene = fake_datasets.FakeScene(number, fake_datasets.SIZE)
            fake_datasets.write_image(root / "images" / f"{number}.jpg", scene.image)
            fake_datasets.write_image(root / folder / f"{number}.png", scene.make_ids(count))
        fake_datasets.write_split_lists(root / "gt_sets", [str(number) for number in range(4)])
        overrides.append(f"data.sets.{set_name}.root={root}")
    return overrides


@pytest.fixture
def no_optimizer_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the weights only; the state of the optimizer is up to twice as large."""

    def save_nothing(file: Path, _: object) -> str:
        file.touch()
        return "00000000"

    monkeypatch.setattr(checkpoint, "_save_state", save_nothing)


@pytest.fixture
def no_flop_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip counting FLOP, which takes a quarter of the time of a step and has its own tests."""
    monkeypatch.setattr(initial_model, "count_flops", lambda *_: {"shared": 0})


@pytest.mark.usefixtures("no_optimizer_state", "no_flop_count")
@pytest.mark.parametrize("file", TRAINED, ids=name)
def test_config_trains_one_step(file: Path, data: dict[str, list[str]], tmp_path: Path) -> None:
    experiment = load_experiment(file, SMALL)
    overrides = [*SMALL, *data[experiment.data.name]]
    if experiment.input.fit == "pad":
        overrides.append("input.size=[64, 64]")  # fake images are larger than 32x32
    if "derived_normals" in load_experiment(file).data.options:
        overrides.append("data.derived_normals=null")
    results = train_experiment(load_experiment(file, overrides), tmp_path, "cpu", max_steps=1)
    assert set(results.tasks) == set(load_experiment(file).list_task_names())
    assert (tmp_path / "results.json").exists()


@pytest.mark.parametrize("file", RUNNABLE, ids=name)
def test_resolved_yaml_loads_equal_experiment(file: Path, tmp_path: Path) -> None:
    experiment = load_experiment(file)
    copy = tmp_path / "copy.yaml"
    copy.write_text(experiment.to_yaml())
    assert load_experiment(copy) == experiment
    assert isinstance(experiment, ExperimentConfig)


@pytest.mark.parametrize("dataset", ["nyud", "pascal_context"])
def test_survey_recipe(dataset: str) -> None:
    """Compare with Vandenhende et al. 2021, section 4 and supplement."""
    recipe = load_experiment(CONFIGS / dataset / "hrnet18" / "hard_sharing.yaml")
    assert (recipe.optim.name, recipe.optim.lr, recipe.optim.weight_decay) == ("adam", 1e-4, 1e-4)
    assert (recipe.schedule.name, recipe.schedule.power, recipe.schedule.interval) == (
        "poly",
        0.9,
        "epoch",
    )
    assert (recipe.train.epochs, recipe.loader.batch_size) == (100, 8)
    assert recipe.backbone.options.get("pretrained", True)


@pytest.mark.parametrize(
    ("dataset", "size", "weights"),
    [
        ("nyud", (448, 576), {"semseg": 1, "depth": 1, "normals": 10, "edge": 50}),
        (
            "pascal_context",
            (512, 512),
            {"semseg": 1, "human_parts": 2, "saliency": 5, "normals": 10, "edge": 50},
        ),
    ],
)
def test_recipes_of_invpt(dataset: str, size: tuple[int, int], weights: dict[str, float]) -> None:
    """Compare with Ye and Xu, ECCV 2022, section 4, whose recipe later papers use."""
    files = [file for folder in LARGE for file in (CONFIGS / dataset / folder).iterdir()]
    assert {"hard_sharing", "invpt", "mlore", "mtmamba", "task_prompts"} <= {
        file.stem for file in files
    }
    for file in files:
        recipe = load_experiment(file)
        optim, schedule = recipe.optim, recipe.schedule
        expected = OPTIMIZERS.get(name(file), ("adam", 2e-5, 1e-6))
        assert (optim.name, optim.lr, optim.weight_decay) == expected
        assert (schedule.name, schedule.power, schedule.interval) == ("poly", 0.9, "step")
        assert (recipe.train.steps, recipe.train.epochs) == (40_000, None)
        assert (recipe.protocol, recipe.input.size) == ("modern", size)
        assert {task.name: task.default_loss_weight for task in build_tasks(recipe)} == weights
        decoder = {"distill": "hard_sharing", "sak": "mixture"}.get(file.stem, file.stem)
        assert (recipe.decoder.name, recipe.balancing.name) == (decoder, "fixed")
        assert "weights" not in recipe.balancing.options


@pytest.mark.parametrize("dataset", ["nyud", "pascal_context"])
def test_hrnet_configs_have_the_batch_norm_momentum_of_the_survey(dataset: str) -> None:
    for file in (CONFIGS / dataset / "hrnet18").glob("*.yaml"):
        assert load_experiment(file).backbone.options["batch_norm_momentum"] == 0.01


def test_pascal_context_has_the_task_order_of_the_survey() -> None:
    experiment = load_experiment(CONFIGS / "pascal_context/hrnet18/mti_net.yaml")
    names = [task.name for task in experiment.tasks]
    assert names == ["semseg", "human_parts", "saliency", "normals", "edge"]
