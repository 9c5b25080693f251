"""Tests of automatic choices of a run, and of the run folder that keeps them."""

from __future__ import annotations

import pytest
import torch
import yaml
from safetensors.torch import load_file

from densemtl import Predictor
from densemtl.engine.checkpoint import LAST_DIR
from densemtl.models import memory_layout
from densemtl.runs import run_dir
from densemtl.runs.train_run import train_experiment
from densemtl.runtime import hardware, progress_bar
from tests.helpers.experiments import make_tiny_experiment

AUTO = ("train.amp=auto", "train.channels_last=auto")


@pytest.fixture
def set_hardware(monkeypatch):
    """Set what the hardware supports, and which layout is measured to be faster."""

    def set_values(bf16: bool, channels_last: bool) -> None:
        def choose(*_):
            return channels_last, {"channels_last": 0.1, "contiguous": 0.2}

        for module in (hardware, run_dir):
            monkeypatch.setattr(module, "has_native_bf16", lambda device: bf16)
        monkeypatch.setattr(memory_layout, "choose_channels_last", choose)

    return set_values


def read_choices(folder):
    train = yaml.safe_load((folder / "config.yaml").read_text())["train"]
    return train["amp"], train["channels_last"]


@pytest.mark.parametrize(("bf16", "amp"), [(True, "bf16"), (False, "none")])
def test_choices_are_saved_and_printed(tmp_path, set_hardware, capsys, bf16, amp):
    set_hardware(bf16, channels_last=False)
    train_experiment(make_tiny_experiment(*AUTO), tmp_path / "run", "cpu", max_steps=1)
    assert read_choices(tmp_path / "run") == (amp, False)
    output = capsys.readouterr().out
    assert f"train.amp: {amp} (this CPU has {'bf' if bf16 else 'no bf'}" in output
    assert "false (per step with a batch of 2: channels_last 0.1 s, contiguous 0.2 s)" in output


def test_layout_is_measured_with_at_most_four_images_on_the_cpu(tmp_path, monkeypatch):
    batch_sizes = []

    def choose(model, image, run_forward):
        batch_sizes.append(len(image))
        return True, {}

    monkeypatch.setattr(memory_layout, "choose_channels_last", choose)
    for size in (2, 8):
        experiment = make_tiny_experiment(AUTO[1], f"loader.batch_size={size}")
        train_experiment(experiment, tmp_path / str(size), "cpu", max_steps=1)
    assert batch_sizes == [2, memory_layout.CPU_IMAGES]


def test_layout_is_measured_without_a_stub(tmp_path):
    experiment = make_tiny_experiment("train.channels_last=auto")
    train_experiment(experiment, tmp_path / "run", "cpu", max_steps=1)
    assert read_choices(tmp_path / "run") in (("none", True), ("none", False))


def test_measuring_does_not_change_the_result(tmp_path, monkeypatch):
    experiment = make_tiny_experiment("train.channels_last=auto")
    monkeypatch.setattr(hardware, "LAYOUT_MARGIN", 0.0)  # channels-last, whatever was measured
    measured = train_experiment(experiment, tmp_path / "measured", "cpu")
    fixed = train_experiment(make_tiny_experiment(), tmp_path / "fixed", "cpu")
    assert measured.weights_hash == fixed.weights_hash


def test_run_resumed_on_other_hardware_keeps_its_choices(tmp_path, set_hardware):
    experiment = make_tiny_experiment(*AUTO)
    set_hardware(bf16=False, channels_last=False)
    train_experiment(experiment, tmp_path / "whole", "cpu")
    train_experiment(experiment, tmp_path / "stopped", "cpu", max_steps=3)
    set_hardware(bf16=True, channels_last=True)
    train_experiment(experiment, tmp_path / "stopped", "cpu")
    assert read_choices(tmp_path / "stopped") == ("none", False)
    whole, resumed = (
        load_file(tmp_path / name / LAST_DIR / "model.safetensors") for name in ("whole", "stopped")
    )
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_requested_value_that_differs_from_the_saved_choice_is_reported(tmp_path, set_hardware):
    set_hardware(bf16=False, channels_last=True)
    train_experiment(make_tiny_experiment(*AUTO), tmp_path / "run", "cpu", max_steps=1)
    with pytest.raises(run_dir.ConfigError, match=r"train\.amp is none there, bf16 here"):
        train_experiment(make_tiny_experiment("train.amp=bf16"), tmp_path / "run", "cpu")


def test_emulated_bf16_is_warned_about_once(tmp_path, set_hardware, recwarn):
    set_hardware(bf16=False, channels_last=True)
    train_experiment(make_tiny_experiment("train.amp=bf16"), tmp_path / "run", "cpu", max_steps=1)
    assert sum("emulates them" in str(warning.message) for warning in recwarn) == 1
    assert read_choices(tmp_path / "run")[0] == "bf16"


def test_baselines_of_other_autocast_types_are_not_reused(tmp_path, set_hardware):
    experiment = make_tiny_experiment(*AUTO, "baselines=auto", "train.epochs=1")
    for bf16 in (False, True):
        set_hardware(bf16, channels_last=True)
        train_experiment(experiment, tmp_path / f"run{bf16}", "cpu")
    amps = [read_choices(folder)[0] for folder in (tmp_path / "baselines").iterdir()]
    assert sorted(amps) == ["bf16", "bf16", "none", "none"]


def test_hashes_of_an_automatic_experiment_contain_those_of_its_runs():
    hashes = make_tiny_experiment(*AUTO).list_config_hashes()
    for amp in ("none", "bf16"):
        run = make_tiny_experiment(f"train.amp={amp}", "train.channels_last=true")
        assert run.compute_config_hash() in hashes
    assert make_tiny_experiment("train.amp=fp16").compute_config_hash() not in hashes


def test_piped_output_has_lines_of_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.0)
    train_experiment(make_tiny_experiment("train.epochs=1"), tmp_path / "run", "cpu")
    lines = [line for line in capsys.readouterr().out.splitlines() if "  step " in line]
    assert len(lines) == 4
    assert all(" left" in line and "img/s" in line for line in lines)
    assert all("semseg" in line and "depth" in line for line in lines[1:])


def test_loading_a_bf16_run_where_it_is_emulated_warns(tmp_path, set_hardware):
    set_hardware(bf16=True, channels_last=True)
    train_experiment(make_tiny_experiment(*AUTO), tmp_path / "run", "cpu", max_steps=1)
    set_hardware(bf16=False, channels_last=True)
    with pytest.warns(RuntimeWarning, match="emulates them"):
        Predictor.from_run(tmp_path / "run", device="cpu")


def test_resumed_run_keeps_bf16_and_warns_where_it_is_emulated(tmp_path, set_hardware):
    set_hardware(bf16=True, channels_last=True)
    train_experiment(make_tiny_experiment(*AUTO), tmp_path / "run", "cpu", max_steps=1)
    set_hardware(bf16=False, channels_last=True)
    with pytest.warns(RuntimeWarning, match="emulates them"):
        train_experiment(make_tiny_experiment(*AUTO), tmp_path / "run", "cpu", max_steps=2)
    assert read_choices(tmp_path / "run")[0] == "bf16"
