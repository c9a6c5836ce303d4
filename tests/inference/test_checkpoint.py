"""The restricted reader reads what torch and numpy write, and refuses every way of running something."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import resource
import signal
import struct
import time
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctenrich.errors import ModelError
from ctenrich.inference.checkpoint import load_restricted, load_state_dict_restricted
from ctenrich.inference.restricted_unpickler import load_pickle_restricted
from ctenrich.reasons import Reason


def checkpoint() -> dict[str, Any]:
    shared = torch.arange(24, dtype=torch.float32)
    return {
        "weights": OrderedDict(a=torch.randn(2, 3, 4), b=torch.randn(4, 6).t(), c=shared[4:16].view(3, 4), d=shared),
        "types": [torch.ones(3).to(d) for d in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool)],
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "empty": torch.empty(0),
        "scalar": torch.tensor(2.5),
        "numpy": [np.float64(0.25), np.float32(0.5), np.int64(7), np.bool_(True)],
        "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "text": "é", "bytes": b"\x00\xff", "none": None, "tuple": (1, 2.5, True), "set": {1, 2}, "big": 2**70,
        "device": torch.device("cpu"), "size": torch.Size([1, 2]), "dtype": torch.float32,
        "default": defaultdict(list, {"x": [1]}),
    }  # fmt: skip


def same(a: Any, b: Any) -> bool:
    if isinstance(b, torch.Tensor):
        return bool(a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b.detach()))
    if isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in b)
    if isinstance(b, list | tuple) and not isinstance(b, torch.Size):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(b, torch.device | torch.dtype):
        return a == str(b).removeprefix("torch.")
    return bool(a == b)


@pytest.mark.parametrize("modern", [True, False])
def test_reads_what_torch_saves(tmp_path: Path, modern: bool) -> None:
    data = checkpoint()
    torch.save(data, tmp_path / "c.pth", _use_new_zipfile_serialization=modern)
    found = load_restricted(tmp_path / "c.pth")
    for key, value in data.items():
        assert same(found[key], value), key


def test_reads_only_what_is_wanted(tmp_path: Path) -> None:
    torch.save({"network_weights": {"w": torch.ones(2)}, "optimizer": {"m": torch.ones(5)}}, tmp_path / "c.pth")
    with zipfile.ZipFile(tmp_path / "c.pth") as archive:
        names = [n for n in archive.namelist() if "/data/" in n]
    assert len(names) == 2
    assert list(load_restricted(tmp_path / "c.pth", only={"network_weights"})) == ["network_weights"]


@pytest.mark.parametrize("protocol", range(5))
def test_reads_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    data = {"a": [1, 2.5, "x", None, True], "b": np.arange(3.0), "c": OrderedDict(k=np.float64(1.5)), "d": {3}}
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(data, protocol=protocol))
    found = load_pickle_restricted(tmp_path / "p.pkl")
    assert same(found, data)


def test_reads_the_shared_models(shared_model: Any) -> None:
    for path in (
        shared_model("lung1-demo") / "fold_all" / "checkpoint_final.pth",
        shared_model("bpr-lung1-demo") / "model.pt",
    ):
        assert same(load_restricted(path), torch.load(path, weights_only=True))
    assert len(load_state_dict_restricted(shared_model("bpr-lung1-demo") / "model.pt")) > 20


class _Gadget:
    def __init__(self, call: Any, *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> Any:
        return self.call, self.args


def gadgets(marker: Path) -> dict[str, Any]:
    """Objects whose ordinary unpickling would create `marker`."""
    command = f"touch {marker}"
    return {
        "system": _Gadget(os.system, command),
        "exec": _Gadget(exec, f"open({str(marker)!r}, 'w')"),
        "eval": _Gadget(eval, f"open({str(marker)!r}, 'w')"),
        "open": _Gadget(open, str(marker), "w"),
        "getattr": _Gadget(getattr, "text", "upper"),
        "torch.load": _Gadget(torch.load, str(marker)),
        "numpy.load": _Gadget(np.load, str(marker)),
        "bytearray": _Gadget(bytearray, 10),
        "pathlib": marker,
    }


@pytest.mark.parametrize("name", list(gadgets(Path("x"))))
@pytest.mark.parametrize("where", ["pickle", "zip", "legacy"])
def test_refuses_gadgets(tmp_path: Path, name: str, where: str) -> None:
    marker = tmp_path / "it-ran"
    payload = {"network_weights": {"w": torch.ones(2)} if where != "pickle" else {}, "x": gadgets(marker)[name]}
    file = tmp_path / "c.pth"
    if where == "pickle":
        file.write_bytes(pickle.dumps(payload))
        read: Any = load_pickle_restricted
    else:
        torch.save(payload, file, _use_new_zipfile_serialization=where == "zip")
        read = load_restricted
    with pytest.raises(ModelError) as caught:
        read(file)
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS
    assert not marker.exists()


def assemble(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


HOSTILE = {
    "stack global by dots": b"\x80\x04\x8c\x0ccollections\x94\x8c\x14OrderedDict.__init__\x93.",
    "os.system by text": b"cos\nsystem\n(S'true'\ntR.",
    "inst opcode": b"(S'true'\nios\nsystem\n.",
    "obj opcode": b"(cos\nsystem\nS'true'\no.",
    "newobj": assemble(b"ccollections\nOrderedDict\n)\x81"),
    "newobj_ex": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
    "extension": assemble(b"\x82\x01"),
    "change a maker": assemble(b"ctorch._utils\n_rebuild_tensor_v2\n}(X\x01\x00\x00\x00aK\x01ub"),
    "change through slots": assemble(b"ctorch._utils\n_rebuild_tensor_v2\nN}(X\x05\x00\x00\x00_callK\x01u\x86b"),
    "reduce with a number": assemble(b"K\x01)R"),
    "bare maker": assemble(b"ccollections\nOrderedDict\n"),
    "persistent id as text": b"Pabc\n.",
    "bad storage": assemble(b"(X\x07\x00\x00\x00storageK\x01K\x01K\x01K\x01tQ"),
    "buffer": b"\x80\x05\x97.",
    "object dtype": assemble(b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R"),
    "structured dtype": assemble(b"cnumpy\ndtype\n]\x85R"),
    "far memo": assemble(b"Nr" + struct.pack("<I", 2**31)),
    "array of another size": pickle.dumps(np.arange(4)).replace(struct.pack("<q", 3), b"", 0)
    .replace(b"K\x04\x85", b"K\x40\x85"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(HOSTILE))
def test_refuses_hostile_pickles(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.pkl").write_bytes(HOSTILE[name])
    with pytest.raises(ModelError):
        load_pickle_restricted(tmp_path / "p.pkl")


def test_deep_and_wide_data_are_bounded(tmp_path: Path) -> None:
    deep = b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b"."
    wide: list[Any] = [1]
    for _ in range(60):
        wide = [wide, wide]
    for data, fine in ((deep, False), (pickle.dumps(wide), True)):
        (tmp_path / "p.pkl").write_bytes(data)
        if fine:
            assert load_pickle_restricted(tmp_path / "p.pkl")[0] is not None
        else:
            with pytest.raises(ModelError):
                load_pickle_restricted(tmp_path / "p.pkl")


LIST_CALL = b"cbuiltins\nlist\n"
BIG = {
    "nested tuples as a key": b"\x80\x02}" + b"K\x01" + b"2\x86" * 160 + b"Ns.",
    "nested tuples in a set": b"\x80\x04\x8f(" + b")" + b"2\x86" * 160 + b"\x90.",
    "copies of one list": b"\x80\x02(" + b"K\x01" * 100_000 + b"lq\x000" + (LIST_CALL + b"h\x00\x85R") * 40_000 + b".",
    "empty sets": b"\x80\x04" + b"\x8f" * 4_000_000 + b".",
    "marks": b"\x80\x02" + b"(" * 8_000_000 + b".",
    "memo": b"\x80\x04N" + b"\x94" * 8_000_000 + b".",
    "equal hashes": b"\x80\x02}("
    + b"".join(b"\x8a\x10" + (k * (2**61 - 1)).to_bytes(16, "little") + b"N" for k in range(1000)) + b"u.",
    "a huge shape": pickle.dumps(np.arange(4), protocol=2).replace(b"K\x04\x85", b"(" + b"K\x00" * 60 + b"t"),
    "a long dtype": b"\x80\x02cnumpy\ndtype\nX" + struct.pack("<I", 300_000) + b"f4," * 100_000 + b"\x85R.",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] if n in ("marks", "empty sets") else []) for n in BIG]
)
def test_pickles_that_ask_for_much_are_refused_early(tmp_path: Path, name: str) -> None:
    """Small pickles that hung the interpreter or took gigabytes end within a budget."""
    (tmp_path / "p.pkl").write_bytes(BIG[name])
    begin = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError) as caught:
        load_pickle_restricted(tmp_path / "p.pkl")
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS
    assert time.process_time() - begin[0] < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin[1] < 1.5 * 1024**2  # KiB


def test_an_interrupt_takes_effect_while_a_pickle_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.pkl").write_bytes(b"\x80\x02" + b"N0" * 3_500_000 + b"N.")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            load_pickle_restricted(tmp_path / "p.pkl")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("modern", [True, False])
def test_tensors_repeat_their_storage_a_few_times_only(tmp_path: Path, modern: bool) -> None:
    """nnU-Net lists a weight under several names; thousands of views of one storage are an attack."""
    weights = torch.arange(100_000.0)
    few = {str(n): weights for n in range(4)}
    torch.save(few, tmp_path / "few.pth", _use_new_zipfile_serialization=modern)
    assert all(torch.equal(t, weights) for t in load_restricted(tmp_path / "few.pth").values())
    torch.save({str(n): weights[n:] for n in range(300)}, tmp_path / "many.pth", _use_new_zipfile_serialization=modern)
    with pytest.raises(ModelError, match="repeat the same numbers") as caught:
        load_restricted(tmp_path / "many.pth")
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS


def test_entries_of_an_archive_do_not_overlap(tmp_path: Path) -> None:
    """The directory of a zip file may list the same bytes many times."""
    torch.save({"w": torch.zeros(10_000)}, tmp_path / "c.pth")
    raw = (tmp_path / "c.pth").read_bytes()
    end = raw.rindex(b"PK\x05\x06")
    place, size = struct.unpack_from("<I", raw, end + 16)[0], struct.unpack_from("<I", raw, end + 12)[0]
    directory = raw[place : place + size]
    start = directory.index(b"/data/0") - 46 - len("c")
    length = 46 + sum(struct.unpack_from("<HHH", directory, start + 28))
    entry = directory[start : start + length]
    more = b"".join(entry.replace(b"/data/0", f"/data/{n}".encode()) for n in range(1, 9))
    tail = bytearray(raw[end:])
    count = struct.unpack_from("<H", raw, end + 10)[0] + 8
    struct.pack_into("<HHI", tail, 8, count, count, size + len(more))
    (tmp_path / "c.pth").write_bytes(raw[:place] + directory + more + bytes(tail))
    with pytest.raises(ModelError):
        load_restricted(tmp_path / "c.pth")


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (100,), (1,)), (5, (10,), (1,)), (0, (10**9,), (0,)), (-1, (2,), (1,)), (0, (2, 2), (1,))],
)
def test_tensors_stay_inside_their_storage(
    tmp_path: Path, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    class Rebuild:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (storage, offset, size, stride, False, OrderedDict())

    storage = torch.ones(10).storage()
    buffer = io.BytesIO()
    torch.save({"w": Rebuild()}, buffer)
    (tmp_path / "c.pth").write_bytes(buffer.getvalue())
    with pytest.raises(ModelError) as caught:
        load_restricted(tmp_path / "c.pth")
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS


def test_compressed_and_short_archives_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(100_000)}, tmp_path / "c.pth")
    with zipfile.ZipFile(tmp_path / "c.pth") as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with zipfile.ZipFile(tmp_path / "short.pth", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data[:100] if "/data/" in name else data)
    (tmp_path / "cut.pth").write_bytes((tmp_path / "c.pth").read_bytes()[:5000])
    (tmp_path / "text.pth").write_text("no weights here")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("packed", "short", "cut", "text", "empty"):
        with pytest.raises(ModelError) as caught:
            load_restricted(tmp_path / f"{name}.pth")
        assert caught.value.reason in {Reason.BAD_MODEL, Reason.UNSAFE_WEIGHTS}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_safe_mode_of_torch_is_no_replacement(tmp_path: Path) -> None:
    """Decision 0044: torch's `weights_only` reads what is refused here, and refuses what nnU-Net writes."""

    class Expanded:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (torch.ones(10).storage(), 0, (10**6,), (0,), False, OrderedDict())

    torch.save({"w": Expanded()}, tmp_path / "expanded.pth")
    torch.save({"w": torch.ones(3).to_sparse()}, tmp_path / "sparse.pth")
    torch.save({"w": torch.zeros(10_000)}, tmp_path / "c.pth")
    with (
        zipfile.ZipFile(tmp_path / "c.pth") as source,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    for name in ("expanded", "sparse", "packed"):
        assert "w" in torch.load(tmp_path / f"{name}.pth", weights_only=True)
        with pytest.raises(ModelError):
            load_restricted(tmp_path / f"{name}.pth")
    torch.save({"network_weights": {}, "logging": {"dice": np.float64(0.5)}}, tmp_path / "nnunet.pth")
    assert load_restricted(tmp_path / "nnunet.pth")["logging"] == {"dice": 0.5}
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "nnunet.pth", weights_only=True)


def test_state_dicts_hold_tensors_only(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "b": 3}, tmp_path / "c.pth")
    with pytest.raises(ModelError, match="more than named tensors"):
        load_state_dict_restricted(tmp_path / "c.pth")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_changed_bytes_never_escape(data: st.DataObject) -> None:
    """Whatever is done to a pickle's bytes: plain data or a ModelError."""
    raw = bytearray(pickle.dumps({"a": np.arange(3.0), "b": OrderedDict(x=np.float64(1.0)), "c": [1, "x"]}, protocol=2))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    from ctenrich.inference.plain_objects import realise, refuse
    from ctenrich.inference.restricted_unpickler import unpickle

    try:
        value, _ = unpickle(bytes(raw))
        realise(value, lambda _: refuse("a tensor"))
    except ModelError:
        return
    assert pickletools.genops(bytes(raw)) is not None
