"""Files and requests of an attacker, made at random."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import torch
import yaml

IMAGE = cv2.imencode(".png", np.zeros((8, 6, 3), np.uint8))[1].tobytes()
TYPES = ("u1", "<f4", "<f8", "<i8", "<c8", "S3", "<U3", "V2", "<M8[s]", "?", "<f2")


class Pickled:
    """Object whose unpickling runs a command."""

    def __init__(self, canary: Path) -> None:
        self._command = f"touch {canary}"

    def __reduce__(self) -> Any:
        return os.system, (self._command,)


def _list_names(canary: Path) -> list[str]:
    """Return texts that could be taken as names of classes, commands, URLs or paths."""
    return [
        *("canary_module:Canary", "canary_module:", "os:system", "builtins:exec", "builtins:dict"),
        *("subprocess:Popen", "torch.nn:Linear", "../../x", "/", "\0", "hf-hub:a/b", "a" * 3000),
        *(f"pipe://touch {canary}", f"http://x/$(touch {canary})", f"pipe:touch {canary}"),
        *("file:///etc", "https://example.invalid/x", f"| touch {canary}", str(canary)),
    ]


def change_config(values: dict[str, Any], canary: Path, rng: random.Random) -> str:
    """Replace one to three values of a configuration, and return it as YAML."""
    names: list[Any] = [
        *_list_names(canary),
        10**30,
        -1,
        500,
        float("nan"),
        None,
        [],
        {},
        True,
        "1e999",
    ]
    keys = ["data", "decoder", "head", "balancing", "backbone", "protocol", "trackers", "tasks"]
    for _ in range(rng.randint(1, 3)):
        name, key = rng.choice(names), rng.choice([*keys, *values])
        entries: list[Any] = [name, {"name": name}, [name], [{"name": name, "kind": name}]]
        if isinstance(values.get(key), dict) and rng.random() < 0.7:
            extra = ("root", "cache_dir", "name", "num_workers", "images", "pretrained", "kind")
            values[key][rng.choice([*extra, *values[key]])] = rng.choice(entries)
        else:
            values[key] = rng.choice(entries)
    if rng.random() < 0.2:
        root = rng.choice([name for name in names if isinstance(name, str)])
        values["data"] = {"name": "shards", "root": root, "cache_dir": str(canary)}
        values["loader"] = {"cache": "disk", "cache_dir": str(canary), "num_workers": 1000}
    return str(yaml.safe_dump(values))


def make_yaml_attack(text: str, canary: Path, rng: random.Random) -> str:
    """Return YAML that constructs objects, expands without limit, or refers to other files."""
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    return rng.choice(
        [
            f"x: !!python/object/apply:os.system ['touch {canary}']\n{text}",
            f"x: !!python/name:canary_module.Canary\n{text}",
            *(bomb + text, "[" * 5000, "a: &a [*a]", "seed: 0x" + "f" * 5000, "? {a: b}\n: c"),
            *(f"base: {name}\n" for name in ("/dev/zero", "run.yaml", "/etc/passwd", "[]", "\x01")),
            "\n".join(f"k{i}: {i}" for i in range(20_000)),
        ]
    )


def damage(data: bytes, rng: random.Random) -> bytes:
    """Truncate a file, overwrite some of its bytes, or repeat it."""
    start, noise = rng.randrange(len(data)), rng.randbytes(rng.randint(1, 40))
    return rng.choice(
        (data[:start], data[:start] + noise + data[start + len(noise) :], data + noise)
    )


def change_state(file: Path, canary: Path, rng: random.Random) -> Any:
    """Return the bytes of a malicious state of training, or a state with a wrong value."""
    content = file.read_bytes()
    state = torch.load(io.BytesIO(content), weights_only=True)
    attack = rng.random()
    if attack < 0.15:
        return pickle.dumps({"record": Pickled(canary)})
    if attack < 0.3:
        memory = io.BytesIO()
        torch.save({**state, "record": Pickled(canary)}, memory)
        return memory.getvalue()
    if attack < 0.4:
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(10**7))
        return memory.getvalue()
    if attack < 0.5:
        return damage(content, rng)
    wrong: list[Any] = [
        None,
        -1,
        10**30,
        "x",
        [],
        {},
        torch.zeros(1).expand(2**31),
        float("nan"),
        b"x",
    ]
    part: Any = state
    for _ in range(rng.randint(0, 3)):
        inner = [value for value in _list_values(part) if isinstance(value, dict | list) and value]
        part = rng.choice(inner) if inner else part
    keys = list(part) if isinstance(part, dict) else list(range(len(part)))
    part[rng.choice(keys)] = rng.choice(wrong)
    return state


def _list_values(part: Any) -> list[Any]:
    return list(part.values()) if isinstance(part, dict) else list(part)


def make_npy(shape: tuple[int, ...], kind: str, size: int) -> bytes:
    """Return a NumPy file whose header may declare another size than it has."""
    memory = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(memory, header)
    return memory.getvalue() + bytes(size)


def _make_mat(rng: random.Random) -> bytes:
    """Return a MATLAB file v5 whose compressed variable has random tags."""
    size = rng.choice((0, 7, 64, 2**20))
    tags = [rng.choice((1, 5, 6, 7, 9, 14, 15, 2**31)) for _ in range(4)]
    shape = (rng.choice((0, 4, -1, 2**30)), rng.choice((1, 8, 2**30)))
    body = struct.pack("<IIII", 6, 8, rng.choice((1, 2, 4, 6, 7, 9, 17)), rng.choice((0, 2**20)))
    body += struct.pack("<IIii", tags[0] % 16, rng.choice((8, 2**31)), *shape)
    body += struct.pack("<II8s", 1, 5, b"depth") + struct.pack("<II", tags[1] % 16, size)
    element = struct.pack("<II", 14, rng.choice((len(body), 2**31))) + body + bytes(size)
    packed = zlib.compress(element)
    kind, data = rng.choice(((15, packed), (14, element[8:]), (tags[2], packed)))
    return b"MATLAB".ljust(124) + b"\x00\x01IM" + struct.pack("<II", kind, len(data)) + data


def _write_hdf5(file: Path, secret: Path, rng: random.Random) -> None:
    if not secret.exists():
        with h5py.File(secret, "w") as handle:
            handle["secret"] = np.ones((4, 4), np.uint8)
    with h5py.File(file, "w", userblock_size=512) as handle:
        attack = rng.randrange(6)
        if attack == 0:
            handle["depth"] = h5py.ExternalLink(str(secret), "secret")
        elif attack == 1:
            handle.create_dataset("depth", (4, 4), "u1", external=[(str(secret), 0, 16)])
        elif attack == 2:
            layout = h5py.VirtualLayout((4, 4), "u1")
            layout[:] = h5py.VirtualSource(str(secret), "secret", (4, 4))
            handle.create_virtual_dataset("depth", layout)
        elif attack == 3:
            shape = (rng.choice((4, 2**15, 2**31)), rng.choice((4, 2**15)))
            handle.create_dataset("depth", shape, "f8", chunks=(4, 4), compression=9)
        elif attack == 4:
            handle.create_dataset("depth", (3,), h5py.string_dtype())
        else:
            handle.create_group("depth")["x"] = h5py.SoftLink("/depth")
    with file.open("r+b") as stream:
        stream.write(b"MATLAB 7.3".ljust(124) + b"\x00\x02IM")


def write_array(folder: Path, secret: Path, canary: Path, rng: random.Random) -> Path:
    """Write a malicious array or image, and return its path."""
    attack = rng.randrange(7)
    suffix = ".mat" if attack in (1, 2) else rng.choice((".npy", ".mat", ".png", ".tif"))
    file = folder / f"array{suffix}"
    file.unlink(missing_ok=True)  # never write through a link
    shape = tuple(rng.choice((0, 1, 3, 8, 31_000, 2**40)) for _ in range(rng.randint(0, 4)))
    if attack == 0:
        file.write_bytes(make_npy(shape, rng.choice(TYPES), rng.choice((0, 9, 768))))
    elif attack == 1:
        file.write_bytes(_make_mat(rng))
    elif attack == 2:
        _write_hdf5(file, secret, rng)
    elif attack == 3:
        file.write_bytes(pickle.dumps(Pickled(canary)))
    elif attack == 4:
        file.symlink_to(rng.choice(("/dev/zero", "/proc/self/mem", "/", "missing")))
    elif attack == 5:
        file.write_bytes(rng.choice((IMAGE[:8], b"II*\0", b"BM", b"%!PS\n")))
        os.truncate(file, rng.choice((9, 5 * 10**9)))
    else:
        file.write_bytes(damage(rng.choice((IMAGE, make_npy((8, 6), "u1", 48))), rng))
    return file


def _make_member(name: str, data: bytes, rng: random.Random) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), rng.choice((b"0", b"0", b"x", b"L", b"g", b"S", b"2", b"5"))
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if rng.random() < 0.5:
        size = rng.choice((-1, -512, -(2**40), 2**50))
        header[124:136] = (size % 256**12).to_bytes(12, "big")
        header[124] |= 0x80
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + data + bytes(-len(data) % 512)


def write_shards(root: Path, canary: Path, rng: random.Random) -> Path:
    """Write an index and a shard with malicious entries, and return their folder."""
    root.mkdir(exist_ok=True)
    names = ["000000.image.png", "000000.semseg.npy", "000000.depth.npy", "../../x.image.png", "x"]
    bodies = [
        *(IMAGE, b"", pickle.dumps(Pickled(canary)), make_npy((31_000, 31_000), "<f4", 9)),
        *(make_npy((8, 6), kind, 8 * 6 * np.dtype(kind).itemsize) for kind in TYPES),
    ]
    parts = [
        _make_member(rng.choice(names), rng.choice(bodies), rng) for _ in range(rng.randint(0, 4))
    ]
    (root / "train-0.tar").write_bytes(b"".join(parts) + bytes(rng.choice((0, 1024, 10240))))
    shard: Any = {"file": "train-0.tar", "ids": ["a"]}
    if rng.random() < 0.5:
        wrong: tuple[Any, ...] = (
            None,
            3,
            "x",
            "../x.tar",
            "/etc/passwd",
            ["a"] * 9,
            [3],
            {},
            str(canary),
        )
        shard[rng.choice(("file", "ids", "more"))] = rng.choice(wrong)
    offers = {"semseg": {"kind": rng.choice(("semseg", "canary_module:Canary", 3, None))}}
    index = json.dumps({"offers": offers, "splits": {"train": [shard]}}).encode()
    (root / "shards.json").write_bytes(damage(index, rng) if rng.random() < 0.2 else index)
    return root


def make_request(canary: Path, rng: random.Random) -> dict[str, Any]:
    """Return a malicious HTTP request as an ASGI scope with the key `body`."""
    paths = ["/", "/predict", "/info", "/viewer.js", "/\ud800", "/\0", "/info/99", "/run/predict"]
    paths += ["/../" * rng.randint(1, 9) + "etc/passwd", f"/file={canary}", "/" + "a" * 5000, "//x"]
    hosts = [b"localhost", b"127.0.0.1:80", b"example.org", b"", b"\xff", b"[::1", b"a@localhost"]
    origins = [b"http://localhost", b"https://example.org", b"null", b"\xff", b"http://[::1"]
    headers = [(b"host", rng.choice(hosts))]
    headers += [(b"origin", rng.choice(origins))] * rng.randint(0, 1)
    kinds = (b"application/octet-stream", b"application/json", b"\xff", b"multipart/form-data")
    headers += [(b"content-type", rng.choice(kinds)), (b"content-length", b"-1")][
        : rng.randint(0, 2)
    ]
    bodies = (IMAGE, damage(IMAGE, rng), b'{"fn_index": 99}', b"", pickle.dumps(Pickled(canary)))
    path = rng.choice(paths)
    return {
        **{"type": "http", "scheme": "http", "http_version": "1.1", "root_path": "", "path": path},
        "method": rng.choice(("GET", "POST", "PUT", "HEAD", "OPTIONS", "X")),
        **{"headers": headers, "query_string": b"fn_index=99&\xff", "body": rng.choice(bodies)},
        "raw_path": path.encode(errors="surrogatepass"),
    }


def send_request(request: dict[str, Any]) -> int:
    """Send a request to the application without a server, and return the status."""
    from densemtl.demo.web.page import create_app

    class NoTasks:
        tasks = ()

        def __call__(self, image: Any) -> dict[str, Any]:
            return {}

    sent: list[Any] = []
    unread = [{"type": "http.request", "body": request["body"], "more_body": False}]
    scope = {key: value for key, value in request.items() if key != "body"}

    async def receive() -> dict[str, Any]:
        if not unread:  # as from a client that stays connected
            await asyncio.Event().wait()
        return unread.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(create_app(NoTasks(), "127.0.0.1")(scope, receive, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])
