"""Tool that checks the data of a configuration."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from densemtl.errors import ConfigError, DataError
from tests.helpers.experiments import write_tiny_config
from tests.helpers.fake_datasets import write_nyud_survey
from tools.check_data import main


@pytest.fixture
def config(tmp_path: Path) -> tuple[str, ...]:
    write_nyud_survey(tmp_path / "nyud")
    data = f"data={{name: nyud, root: {tmp_path / 'nyud'}}}"
    return str(write_tiny_config(tmp_path)), data


def test_tool_prints_tables_and_draws_samples(config, tmp_path, capsys):
    picture = tmp_path / "samples.png"
    main([*config, "--output", str(picture)])
    printed = capsys.readouterr()
    assert "ignored %" in printed.out
    assert "cabinet" in printed.out
    assert "classes never occur" in printed.err
    assert cv2.imread(str(picture)).shape[0] > 2 * 48


def test_tool_names_every_unreadable_file(config, tmp_path, capsys):
    for name in ("0001", "0002"):
        (tmp_path / "nyud" / "depth" / f"{name}.npy").write_bytes(b"")
    picture = tmp_path / "samples.png"
    with pytest.raises(DataError, match=r"(?s)0001\.npy.*\n.*0002\.npy"):
        main([*config, "--output", str(picture)])
    assert not picture.exists()
    assert "train: depth: all" not in capsys.readouterr().err


def test_tool_reports_copies_of_training_images(config, tmp_path, capsys):
    images = tmp_path / "nyud" / "images"
    (images / "0003.jpg").write_bytes((images / "0001.jpg").read_bytes())
    main([*config, "--max-images", "1"])
    assert "the content of an image of train: 0003 = 0001" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--max-images", "0"), ("--output", "samples.txt")])
def test_tool_rejects_wrong_options(config, option):
    with pytest.raises(ConfigError, match=option[0]):
        main([*config, *option])
