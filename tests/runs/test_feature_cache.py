"""Training from cached features: equal results, exact resume, invalidation and errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from densemtl.backbones.backbone import Backbone
from densemtl.config.experiment import ExperimentConfig
from densemtl.data.feature_cache import FeatureRecord, FeatureStore
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.trainer import train
from densemtl.errors import ConfigError, DataError, OutputError
from densemtl.factory import build_dataset, build_model, build_splits, build_tasks
from densemtl.runs import feature_cache, missing_files
from densemtl.runs.feature_cache import check_feature_cache
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from densemtl.types import ImagePlacement
from tests.engine.test_trainer import assert_equal_runs, load_tensors
from tests.helpers.experiments import make_tiny_experiment

FROZEN = ("backbone.freeze=all", "augment.num_views=2", "train.epochs=3", "loader.batch_size=4")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., TrainingRun]:
    """Return a function that builds a run, whose features are cached in one folder."""

    def make_run(name: str, *overrides: str, cache: str = "features") -> TrainingRun:
        folder = f"loader.cache_dir={tmp_path / 'cache'}"
        experiment = make_tiny_experiment(*FROZEN, f"loader.cache={cache}", folder, *overrides)
        execution = make_execution_config(experiment.train, "cpu")
        return build_training_run(experiment, build_splits(experiment), tmp_path / name, execution)

    return make_run


def list_files(tmp_path: Path, split: str = "") -> list[Path]:
    return sorted((tmp_path / "cache").glob(f"synthetic-{split}*/*/*.npy"))


def test_training_equals_training_on_images_and_skips_the_backbone(
    make: Callable[..., TrainingRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backbone is run once for 2 views of 8 images and for 4 validation images."""
    expected = make("images", cache="none")
    train(expected)
    images: list[int] = []
    forward = Backbone.forward

    def count(net: Backbone, image: torch.Tensor) -> list[torch.Tensor]:
        if not image.is_meta:
            images.append(len(image))
        return forward(net, image)

    monkeypatch.setattr(Backbone, "forward", count)
    run = make("features")
    assert (sum(images), len(list_files(tmp_path))) == (20, 20)
    images.clear()
    monkeypatch.setattr("densemtl.engine.trainer._draw_predictions", lambda *_: None)
    train(run)
    assert images == []
    tensors, others = load_tensors(tmp_path / "images"), load_tensors(tmp_path / "features")
    for name, tensor in tensors.items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-4)
    for task, scores in expected.state.progress.scores.items():
        assert run.state.progress.scores[task] == pytest.approx(scores, rel=1e-3, nan_ok=True)
    make("other", "decoder.name=pad_net")
    assert images == []  # other decoders read the same features


def test_resume_is_bit_exact_even_if_the_cache_was_incomplete(
    make: Callable[..., TrainingRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(make("uninterrupted"))
    for file in list_files(tmp_path):
        file.rename(file.with_suffix(".reference"))
    count = iter(range(100))
    save = FeatureStore.save

    def save_five(store: FeatureStore, *args: object) -> None:
        if next(count) == 5:
            raise KeyboardInterrupt
        save(store, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "save", save_five)
        with pytest.raises(KeyboardInterrupt):
            make("resumed")
    train(make("resumed"), max_steps=3)
    files = list_files(tmp_path)
    assert len(files) == 20
    assert all(f.read_bytes() == f.with_suffix(".reference").read_bytes() for f in files)
    train(make("resumed"))
    assert_equal_runs(tmp_path / "uninterrupted", tmp_path / "resumed")


def test_ranks_share_the_work_and_must_see_all_files(
    make: Callable[..., TrainingRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "CHUNK_SIZE", 3)
    monkeypatch.setattr(missing_files, "get_world_size", lambda: 2)
    written = []
    for rank, split in ((0, "train"), (1, "val")):  # rank 0 stops before the validation images
        monkeypatch.setattr(missing_files, "get_rank", lambda rank=rank: rank)
        with pytest.raises(OutputError, match=f"{split}-.*: not visible to all processes: set"):
            make("run")
        written.append(len(list_files(tmp_path, "train")))
    assert written == [3 + 2 + 3, 16]


def test_corrupt_file_is_one_line_and_computed_again(
    make: Callable[..., TrainingRun], tmp_path: Path
) -> None:
    run = make("run", "train.epochs=1")
    file = list_files(tmp_path, "train")[3]
    data = file.read_bytes()
    file.write_bytes(data[:-3000] + bytes([data[-3000] ^ 1]) + data[-2999:])
    with pytest.raises(DataError, match=f"{file.name}: the cached features are missing") as error:
        train(run)
    assert "\n" not in str(error.value)
    make("run", "train.epochs=1")
    assert file.read_bytes() == data


def test_image_is_cached_only_for_losses_that_read_it(make: Callable[..., TrainingRun]) -> None:
    losses = "[{name: l1}, {name: edge_aware_smoothness, weight: 0.1}]"
    smooth = f"tasks=[{{name: depth, loss: {losses}}}]"
    for overrides, is_cached in (((), False), ((smooth,), True)):
        cached, plain = (
            make("run", "loader.batch_size=4", *overrides, cache=cache).train_loader
            for cache in ("features", "none")
        )
        batch, expected = next(iter(cached)), next(iter(plain))
        assert torch.equal(batch.image, expected.image) is is_cached
        assert (
            torch.equal(batch.targets["depth"], expected.targets["depth"])
            or expected.targets["depth"].isnan().any()
        )
        assert (batch.ids, batch.placements) == (expected.ids, expected.placements)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_record_is_restored_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    dataset = build_dataset(make_tiny_experiment(), "val")
    store = FeatureStore(tmp_path, dataset)
    maps = [torch.randn(3, 2, 4).to(dtype), torch.randn(5, 1, 2).to(dtype).transpose(1, 2)]
    placement = ImagePlacement((32, 40), (1, 2, 30, 38))
    assert not store.contains((1, 2))
    store.save((1, 2), FeatureRecord(maps, dataset[2].targets, placement))
    assert store.contains((1, 2))
    assert not store.contains((0, 2))
    record = store.load((1, 2))
    assert all(torch.equal(a, b) for a, b in zip(maps, record.maps, strict=True))
    assert [each.dtype for each in record.maps] == [dtype, dtype]
    assert record.placement == placement
    for task, target in dataset[2].targets.items():
        assert (record.targets[task] == target)[~_isnan(target)].all()


def _isnan(array: object) -> object:
    return torch.as_tensor(array).double().isnan().numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("override", "splits"),
    [
        ("decoder.name=mti_net", set()),
        ("optim.lr=0.1", set()),
        ("augment.num_views=1", set()),
        ("seed=1", {"train", "val"}),  # also changes the random weights
        ("augment.flip_prob=0", {"train"}),
        ("tasks=[depth]", {"train", "val"}),
        ("input.size=[32, 48]", {"train", "val"}),
        ("backbone.options={zero_init_last: false}", {"train", "val"}),
        ("train.amp=bf16", {"train", "val"}),
    ],
)
def test_key_depends_on_weights_data_and_transforms(override: str, splits: set[str]) -> None:
    def list_folders(*overrides: str) -> dict[str, Path]:
        experiment = make_tiny_experiment(*FROZEN, *overrides)
        torch.manual_seed(experiment.seed)
        model = build_model(experiment, build_tasks(experiment))
        execution = make_execution_config(experiment.train, "cpu")
        return {
            split: feature_cache._get_folder(
                experiment,
                build_dataset(experiment, split),  # type: ignore[arg-type]
                model,
                execution,
            )
            for split in ("train", "val")
        }

    before, after = list_folders(), list_folders(override)
    assert {split for split in before if before[split] != after[split]} == splits


def build(*overrides: str) -> ExperimentConfig:
    experiment = make_tiny_experiment("loader.cache=features", *overrides)
    check_feature_cache(experiment, build_model(experiment, build_tasks(experiment)))
    return experiment


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "loader.cache: features: the backbone is trained: set backbone.freeze=all"),
        (("backbone.freeze=2",), "the backbone is trained: set backbone.freeze=all"),
        (
            ("backbone.freeze=all", "decoder.name=mtan"),
            "decoder 'mtan' does not only read the features of one backbone: use atrc, cgc,"
            " hard_sharing, invpt, jtrl, ml_mmoe, mlore, mmoe, mti_net, mtmamba, pad_net, pap_net,"
            " ple, single_task, ubernet, or another cache",
        ),
        (("backbone.freeze=all", "decoder.name=cross_stitch"), "decoder 'cross_stitch' does not"),
        (
            ("backbone.freeze=all", "decoder={name: ubernet, scales: [1, 0.5]}"),
            "the decoder reads several scales: set decoder.scales=",
        ),
        (("backbone.freeze=all", "train.fsdp=true"), "set train.fsdp=false"),
    ],
)
def test_unsuitable_settings_are_one_line(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(*overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_size_is_printed_and_limited(
    make: Callable[..., TrainingRun], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"need .* GB, more than loader.cache_max_gb \(1e-05\)"):
        make("run", "loader.cache_max_gb=1e-5")
    assert "features of train: 8 images, 2 views of" in capsys.readouterr().out


def test_views_repeat_in_turn(make: Callable[..., TrainingRun]) -> None:
    source = make("run", "augment.scale_range=[1, 2]", cache="none").train_loader.source
    images = [source[epoch, 0][0].image for epoch in range(4)]
    assert [[(a == b).all() for b in images] for a in images] == [
        [(a - b) % 2 == 0 for b in range(4)] for a in range(4)
    ]


def test_cache_is_not_part_of_the_hash_but_the_number_of_views_is() -> None:
    plain = make_tiny_experiment().compute_config_hash()
    for override, equal in (("loader.cache=features", True), ("augment.num_views=2", False)):
        assert (make_tiny_experiment(override).compute_config_hash() == plain) is equal
    assert math.isclose(make_tiny_experiment().loader.cache_max_gb, 100)
