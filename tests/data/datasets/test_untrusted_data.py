"""Datasets from elsewhere: patterns without a folder, and shards with wrong members."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from densemtl.data.datasets.folder import FolderDataset, SplitFiles
from densemtl.data.datasets.folder_labels import LabelSpec
from densemtl.data.datasets.shards import ShardsDataset
from densemtl.errors import UserError

IMAGE = np.zeros((8, 6, 3), np.uint8)
LABEL = np.zeros((8, 6), np.uint8)


def make_folder(
    root: Path, images: str, files: str, splits: SplitFiles | None = None
) -> FolderDataset:
    labels = {"semseg": LabelSpec(files=files, class_names=["a", "b"])}
    return FolderDataset(
        "train", ["semseg"], root=root, images=images, labels=labels, splits=splits
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder, array in (("images", IMAGE), ("masks", np.eye(8, 6, dtype=np.uint8))):
        (tmp_path / folder).mkdir()
        for name in "ab":
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), array)
    return tmp_path


def check_one_line(error: UserError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 6000


@pytest.mark.parametrize(
    "pattern",
    [
        *("/", "//", "", "/{id}", "/{id}.png", "/*", "/**/{id}.png", "/./{id}", "/etc/../{id}"),
        *("\0", "images/\0", "\ud800", "\ud800/{id}.png", "a" * 5000, "/proc/self/mem/{id}"),
        *("{id}{id}", "**", "{split}", "{", "{}", "[", "[a-/{id}", "/dev/{id}", "/proc/{id}"),
    ],
)
def test_patterns_that_find_nothing_are_one_line(pattern: str, root: Path) -> None:
    for images, files in ((pattern, "masks"), ("images", pattern)):
        with pytest.raises(UserError) as error:
            make_folder(root, images, files)
        check_one_line(error.value)


def test_patterns_may_be_absolute_paths_of_a_folder(root: Path) -> None:
    assert make_folder(root, str(root / "images"), str(root / "masks/{id}.png")).ids
    with pytest.raises(UserError, match="searches the whole file system; name a folder"):
        make_folder(root, "images", "/{id}.png")


@pytest.mark.parametrize(
    "name", ["/dev/zero", "/dev/null", "..", ".", "\0", "\ud800", "/proc/self/mem", "x" * 5000]
)
def test_split_lists_that_are_no_files_are_one_line(name: str, root: Path) -> None:
    with pytest.raises(UserError) as error:
        make_folder(root, "images", "masks", SplitFiles(train=Path(name), val=Path(name)))
    check_one_line(error.value)


def encode(array: np.ndarray) -> bytes:
    memory = io.BytesIO()
    np.save(memory, array, allow_pickle=True)
    return memory.getvalue()


def encode_png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def make_member(name: str, data: bytes, size: int | None = None, kind: bytes = b"0") -> bytes:
    """Return a member of a tar file whose header may state another size, also a negative one."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size is not None:
        header[124:136] = (size % 256**12).to_bytes(12, "big")
        header[124] |= 0x80
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + data + bytes(-len(data) % 512)


def read_shard(root: Path, *members: bytes) -> ShardsDataset:
    (root / "train-0.tar").write_bytes(b"".join(members) + bytes(10240))
    shards = [{"file": "train-0.tar", "ids": ["a"]}]
    index = {"offers": {"semseg": {}}, "splits": {"train": shards}}
    (root / "shards.json").write_text(json.dumps(index))
    dataset = ShardsDataset("train", ["semseg"], root=str(root))
    assert dataset[0].image.shape == (8, 6, 3)
    return dataset


GOOD_IMAGE = make_member("000000.image.png", encode_png(IMAGE))
GOOD_LABEL = make_member("000000.semseg.png", encode_png(LABEL))


def test_correct_shard_is_read(tmp_path: Path) -> None:
    assert read_shard(tmp_path, GOOD_IMAGE, GOOD_LABEL)[0].targets["semseg"].dtype == np.uint8


@pytest.mark.parametrize("size", [-1, -512, -1024, -(10**6), -(2**40), 10**6, 2**40])
@pytest.mark.parametrize("kind", [b"0", b"L", b"S", b"5", b"2", b"1", b"6"])
def test_members_of_impossible_size_are_one_line(size: int, kind: bytes, tmp_path: Path) -> None:
    member = make_member("000000.semseg.npy", b"", size, kind)
    with pytest.raises(UserError) as error:
        read_shard(tmp_path, GOOD_IMAGE, member)
    check_one_line(error.value)


@pytest.mark.parametrize(
    "array",
    [
        np.array([["a"]]),
        np.array([[None]], object),
        np.zeros((8, 6), [("a", "f4")]),
        np.zeros((8, 6), complex),
        np.zeros((8, 6), "M8[s]"),
        np.zeros((8, 6), np.uint64),
        np.zeros((8, 6, 3), np.uint8),
        np.zeros((8, 6, 1, 1), np.float32),
        np.zeros((0, 6), np.float32),
        np.zeros(8, np.float32),
        np.float32(3),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}",
)
def test_arrays_of_wrong_type_are_one_line(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-0\.tar") as error:
        read_shard(tmp_path, GOOD_IMAGE, make_member("000000.semseg.npy", encode(array)))
    check_one_line(error.value)
    if array.shape != (8, 6, 3):
        with pytest.raises(UserError, match=r"train-0\.tar") as error:
            read_shard(tmp_path, make_member("000000.image.npy", encode(array)), GOOD_LABEL)
        check_one_line(error.value)


@pytest.mark.parametrize("array", [LABEL, IMAGE.astype(np.uint16)], ids=["gray", "16 bits"])
def test_image_in_a_shard_must_be_rgb(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the image must be 8-bit RGB"):
        read_shard(tmp_path, make_member("000000.image.png", encode_png(array)), GOOD_LABEL)
