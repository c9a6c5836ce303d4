from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from tests.support.compressed_frames import (
    COLUMNS,
    ROWS,
    SLICES,
    Encoder,
    jpeg,
    jpeg2000,
    jpegls,
    rle,
    stored_bits,
    write_frames,
)
from tests.support.small_series import SERIES, Small, folder_entry, small_pixels, write_small

from ctenrich.dicom import ct_slice
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import Volume
from ctenrich.settings import Settings
from ctenrich.stages import convert, second_reader
from ctenrich.stages.convert import convert_series
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.workspace import Workspace, load_array


def phantom(k: int) -> np.ndarray:
    """HU of a slice: an ellipse of tissue in air, with a pattern that no two slices share."""
    j, i = np.ogrid[:ROWS, :COLUMNS]
    inside = ((j - 15) / 11) ** 2 + ((i - 21) / 17) ** 2 <= 1
    return np.where(inside, 60, -990) + (5 * i + 3 * j + 11 * k) % 13


TRUTH = np.stack([phantom(k) for k in range(SLICES)])


@dataclass(frozen=True, kw_only=True)
class Case:
    """A way to store the phantom."""

    syntax: str
    encode: Encoder = bytes
    bits: int = 12
    allocated: int = 16
    signed: bool = False
    slope: float = 1
    intercept: float = -1200
    signed_stream: bool = False
    """Whether the encoder gets signed values."""
    fragments: int = 1
    table: bool = True
    elements: dict[str, Any] = field(default_factory=dict)

    def pixels(self, k: int) -> np.ndarray:
        stored = np.rint((phantom(k) - self.intercept) / self.slope).astype(np.int64)
        if self.signed and not self.signed_stream:
            return stored_bits(stored, self.bits)
        return stored.astype(f"<{'i' if self.signed else 'u'}{self.allocated // 8}")

    def write(self, folder: Path) -> Path:
        elements = {
            "BitsAllocated": self.allocated,
            "BitsStored": self.bits,
            "HighBit": self.bits - 1,
            "PixelRepresentation": int(self.signed),
            "RescaleSlope": self.slope,
            "RescaleIntercept": self.intercept,
            **self.elements,
        }
        frames = [self.encode(self.pixels(k)) for k in range(SLICES)]
        return write_frames(folder, self.syntax, frames, fragments=self.fragments, table=self.table, elements=elements)


def convert_folder(folder: Path, workspace: Workspace) -> tuple[Volume, np.ndarray]:
    """The volume, after a check that the NIfTI has the same voxels."""
    fetched = fetch_series(folder_entry(folder), settings=Settings(), workspace=workspace)
    series = sort_series(fetched, settings=Settings(), workspace=workspace)
    volume = convert_series(series, settings=Settings(), workspace=workspace)
    array = load_array(workspace.resolve(SERIES, volume.array_path))
    assert volume.nifti_path is not None
    image = nibabel.load(workspace.resolve(SERIES, volume.nifti_path))
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1], array)
    files = {p.name for p in (workspace.series_dir(SERIES) / "volume").iterdir()}
    assert files == {"ct.nii", "ct.npy", "slices.json"}
    return volume, array


def readers(volume: Volume) -> str:
    """The note on the readers, empty for the usual pair."""
    return " ".join(i.message for i in volume.issues if i.rule == "convert.readers")


def signed(bits: int, syntax: str, encode: Encoder, *, stream: bool = False) -> Case:
    return Case(syntax=syntax, encode=encode, bits=bits, signed=True, intercept=0, signed_stream=stream)


USUAL = {
    "RLE, 12 bits": Case(syntax=RLELossless, encode=rle),
    "RLE, 16 bits signed": signed(16, RLELossless, rle, stream=True),
    "JPEG lossless, first-order": Case(syntax=JPEGLosslessSV1, encode=jpeg(12, predictor=1)),
    "JPEG lossless, predictor 4": Case(syntax=JPEGLossless, encode=jpeg(12, predictor=4)),
    "JPEG lossless, predictor 7": Case(syntax=JPEGLossless, encode=jpeg(16, predictor=7), bits=16),
    "JPEG lossless, two fragments": Case(syntax=JPEGLosslessSV1, encode=jpeg(12, predictor=1), fragments=2),
    "JPEG-LS": Case(syntax=JPEGLSLossless, encode=jpegls()),
    "JPEG-LS, 12 bits signed": signed(12, JPEGLSLossless, jpegls()),
    "JPEG 2000": Case(syntax=JPEG2000Lossless, encode=jpeg2000(12)),
    "JPEG 2000, five fragments": Case(syntax=JPEG2000Lossless, encode=jpeg2000(12), fragments=5, table=False),
    "JPEG 2000, 13 bits signed": signed(13, JPEG2000Lossless, jpeg2000(13), stream=True),
    "JPEG 2000, 12 bits in a stream of 16": Case(syntax=JPEG2000Lossless, encode=jpeg2000(16)),
    "JPEG 2000, without loss in the lossy syntax": Case(syntax=JPEG2000, encode=jpeg2000(12)),
    "HTJ2K": Case(syntax=HTJ2KLossless, encode=jpeg2000(12, high_throughput=True)),
    "native, 12 bits signed, sign extended": signed(12, ExplicitVRLittleEndian, np.ndarray.tobytes, stream=True),
    "native, 32 bits": Case(syntax=ExplicitVRLittleEndian, encode=np.ndarray.tobytes, bits=32, allocated=32),
}


@pytest.mark.parametrize("name", USUAL)
def test_what_dcm2niix_reads_is_compared_with_dcm2niix(tmp_path: Path, workspace: Workspace, name: str) -> None:
    volume, array = convert_folder(USUAL[name].write(tmp_path / "in"), workspace)
    np.testing.assert_array_equal(array, TRUTH)
    assert [i.rule for i in volume.issues] == []


FRAGMENTS = {
    "JPEG-LS, three, offset table": Case(syntax=JPEGLSLossless, encode=jpegls(), fragments=3),
    "JPEG-LS, two, no offset table": Case(syntax=JPEGLSLossless, encode=jpegls(), fragments=2, table=False),
    "RLE, four, offset table": Case(syntax=RLELossless, encode=rle, fragments=4),
    "RLE, two, no offset table": Case(syntax=RLELossless, encode=rle, fragments=2, table=False),
}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments_are_joined_for_dcm2niix(tmp_path: Path, workspace: Workspace, name: str) -> None:
    volume, array = convert_folder(FRAGMENTS[name].write(tmp_path / "in"), workspace)
    np.testing.assert_array_equal(array, TRUTH)
    assert readers(volume) == (
        "ctenrich and dcm2niix agree on the voxels; it read copies with the fragments of 3 frames joined"
    )
    assert "convert.clean_copies" not in [i.rule for i in volume.issues]


MISREAD = {
    "HTJ2K, RPCL": Case(syntax=HTJ2KLosslessRPCL, encode=jpeg2000(12, high_throughput=True)),
    "JPEG 2000, 13 bits signed, unsigned stream": signed(13, JPEG2000Lossless, jpeg2000(13)),
    "JPEG 2000, 14 bits signed, unsigned stream": signed(14, JPEG2000Lossless, jpeg2000(14)),
    "JPEG 2000, 15 bits signed, unsigned stream, fragments": replace(
        signed(15, JPEG2000Lossless, jpeg2000(15)), fragments=3, table=False
    ),
    "JPEG lossless, 13 bits signed": signed(13, JPEGLosslessSV1, jpeg(13, predictor=1)),
    "JPEG-LS, 14 bits signed": signed(14, JPEGLSLossless, jpegls()),
    "RLE, 15 bits signed": signed(15, RLELossless, rle),
    "native, 13 bits signed": signed(13, ExplicitVRLittleEndian, np.ndarray.tobytes),
    "native, 32 bits, beyond 31": Case(
        syntax=ExplicitVRLittleEndian,
        encode=np.ndarray.tobytes,
        bits=32,
        allocated=32,
        intercept=-3_000_000_000,
    ),
}


@pytest.mark.parametrize("name", MISREAD)
def test_simpleitk_decides_where_dcm2niix_misreads(tmp_path: Path, workspace: Workspace, name: str) -> None:
    volume, array = convert_folder(MISREAD[name].write(tmp_path / "in"), workspace)
    np.testing.assert_array_equal(array, TRUTH)
    assert readers(volume).startswith("ctenrich and SimpleITK agree on the voxels; dcm2niix read copies with unpacked")


def test_simpleitk_decides_on_eight_bits_signed(tmp_path: Path, workspace: Workspace) -> None:
    stored = TRUTH % 200 - 100
    elements = {
        "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 1,
        "RescaleSlope": 10, "RescaleIntercept": -3,
    }  # fmt: skip
    frames = [plane.astype(np.int8).tobytes() for plane in stored]
    write_frames(tmp_path / "in", ExplicitVRLittleEndian, frames, elements=elements)
    volume, array = convert_folder(tmp_path / "in", workspace)
    np.testing.assert_array_equal(array, stored * 10 - 3)
    assert "SimpleITK" in readers(volume)


@pytest.mark.parametrize(
    ("bits", "is_signed", "overlay"), [(12, False, 0x8000), (12, False, 0xF000), (12, True, 0x1000), (13, True, 0x4000)]
)
def test_overlays_in_high_bits_are_masked(
    tmp_path: Path, workspace: Workspace, bits: int, is_signed: bool, overlay: int
) -> None:
    intercept = 0 if is_signed else -1200
    stored = [stored_bits(phantom(k) - intercept, bits) for k in range(SLICES)]
    for k, plane in enumerate(stored):
        plane[(np.add.outer(np.arange(ROWS), np.arange(COLUMNS)) + k) % 4 == 0] |= overlay
    elements = {
        "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(is_signed), "RescaleIntercept": intercept
    }  # fmt: skip
    write_frames(tmp_path / "in", ExplicitVRLittleEndian, [p.tobytes() for p in stored], elements=elements)
    volume, array = convert_folder(tmp_path / "in", workspace)
    np.testing.assert_array_equal(array, TRUTH)
    assert any("bits above Bits Stored are set" in i.message for i in volume.issues)


LOSSY = {
    "JPEG, 12 bits": (Case(syntax=JPEGExtended12Bit, encode=jpeg(12)), 2),
    "JPEG, 12 bits, fragments": (Case(syntax=JPEGExtended12Bit, encode=jpeg(12), fragments=3), 2),
    "JPEG, 12 bits, fragments, no offset table": (
        Case(syntax=JPEGExtended12Bit, encode=jpeg(12), fragments=2, table=False), 2,
    ),
    "JPEG 2000": (Case(syntax=JPEG2000, encode=jpeg2000(12, ratio=1.2)), 2),
    "JPEG 2000, 13 bits signed, unsigned stream": (signed(13, JPEG2000, jpeg2000(13, ratio=1.2)), 2),
    "HTJ2K": (Case(syntax=HTJ2K, encode=jpeg2000(12, ratio=1, high_throughput=True)), 2),
    "JPEG-LS, near 2": (Case(syntax=JPEGLSNearLossless, encode=jpegls(2)), 2),
    "JPEG-LS, near 3, fragments": (Case(syntax=JPEGLSNearLossless, encode=jpegls(3), fragments=3), 3),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_slices_are_within_their_step_of_what_was_written(
    tmp_path: Path, workspace: Workspace, name: str
) -> None:
    case, step = LOSSY[name]
    case = replace(case, elements={"LossyImageCompression": "01"})
    volume, array = convert_folder(case.write(tmp_path / "in"), workspace)
    if case.signed:  # the wavelet runs over the jump of an unsigned code stream from 0 to 2^13
        assert np.median(np.abs(array - TRUTH)) <= step
    else:
        assert np.abs(array - TRUTH).max() <= step
    assert volume.shape == TRUTH.shape


@pytest.mark.parametrize(
    ("syntax", "fragments", "table", "reader"),
    [
        (JPEGBaseline8Bit, 1, True, "dcm2niix"),
        (JPEGBaseline8Bit, 3, True, "dcm2niix"),
        (JPEGBaseline8Bit, 3, False, "dcm2niix"),
        (JPEGExtended12Bit, 2, True, "SimpleITK"),
    ],
)
def test_jpeg_of_eight_bits_is_compared_within_two_steps(
    tmp_path: Path, workspace: Workspace, syntax: str, fragments: int, table: bool, reader: str
) -> None:
    stored = [np.clip((phantom(k) + 1024) // 5, 0, 255).astype(np.uint8) for k in range(SLICES)]
    elements = {
        "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "RescaleSlope": 5, "RescaleIntercept": -1024,
        "LossyImageCompression": "01",
    }  # fmt: skip
    frames = [jpeg(8, quality=97)(p) for p in stored]
    write_frames(tmp_path / "in", syntax, frames, fragments=fragments, table=table, elements=elements)
    volume, array = convert_folder(tmp_path / "in", workspace)
    assert np.abs(array - (np.stack(stored).astype(int) * 5 - 1024)).max() <= 5 * 8
    note = readers(volume)
    assert note.startswith(f"ctenrich and {reader} agree on the voxels")
    assert ("fragments of 3 frames joined" in note) is (reader == "dcm2niix" and fragments > 1)


def changed_by(monkeypatch: pytest.MonkeyPatch, hu: int) -> None:
    """Make our reader err by `hu` in one voxel of the slice 1."""

    def read(path: Path, out: np.ndarray) -> ct_slice.SlicePixels:
        pixels = ct_slice.read_slice(path, out)
        if path.name == "1.dcm":
            out[20, 30] += hu
        return pixels

    monkeypatch.setattr(convert, "read_slice", read)


@pytest.mark.parametrize(
    "case",
    [
        Case(syntax=ExplicitVRLittleEndian, encode=np.ndarray.tobytes),
        Case(syntax=JPEGLSLossless, encode=jpegls()),
        Case(syntax=JPEGLSNearLossless, encode=jpegls(3)),
        FRAGMENTS["RLE, four, offset table"],
        MISREAD["JPEG 2000, 13 bits signed, unsigned stream"],
    ],
    ids=["native", "JPEG-LS", "near-lossless", "fragments", "misread"],
)
def test_a_voxel_on_which_both_others_differ_is_refused(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    changed_by(monkeypatch, 1)
    with pytest.raises(InputError) as caught:
        convert_folder(case.write(tmp_path / "in"), workspace)
    assert caught.value.reason is Reason.READERS_DISAGREE
    assert "differ from dcm2niix's" in caught.value.message
    assert "1 voxels of slice 1 differ from SimpleITK's" in caught.value.message
    assert list((workspace.series_dir(SERIES) / "volume").glob("*")) == []


@pytest.mark.parametrize("name", ["JPEG 2000", "JPEG, 12 bits, fragments", "HTJ2K"])
def test_lossy_voxels_may_differ_by_two_steps_and_no_more(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case = replace(LOSSY[name][0], slope=3, intercept=-1199)
    changed_by(monkeypatch, 3)
    volume, _ = convert_folder(case.write(tmp_path / "in"), workspace)
    assert "by which decoders of lossy frames may differ" in readers(volume)
    changed_by(monkeypatch, 12)
    with pytest.raises(InputError) as caught:
        convert_folder(tmp_path / "in", Workspace(tmp_path / "again"))
    assert caught.value.reason is Reason.READERS_DISAGREE
    assert "1 voxels of slice 1 differ from SimpleITK's" in caught.value.message


def test_slices_that_no_second_reader_decodes_are_refused(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_reader, "_read_by_simpleitk", lambda _: None)
    with pytest.raises(InputError) as caught:
        convert_folder(MISREAD["JPEG-LS, 14 bits signed"].write(tmp_path / "in"), workspace)
    assert caught.value.reason is Reason.READERS_DISAGREE
    assert "differ from dcm2niix's; SimpleITK does not read slice 0" in caught.value.message


def test_padding_and_monochrome1_through_simpleitk(tmp_path: Path, workspace: Workspace) -> None:
    stored = [phantom(k) for k in range(SLICES)]
    for plane in stored:
        plane[:3] = -2000
    elements = {
        "BitsStored": 13, "HighBit": 12, "PixelRepresentation": 1, "RescaleIntercept": 0,
        "PixelPaddingValue": -2000, "PhotometricInterpretation": "MONOCHROME1",
    }  # fmt: skip
    frames = [jpeg2000(13)(stored_bits(p, 13)) for p in stored]
    write_frames(tmp_path / "in", JPEG2000Lossless, frames, elements=elements)
    volume, array = convert_folder(tmp_path / "in", workspace)
    assert (array[:, :3] == -1024).all()
    np.testing.assert_array_equal(array[:, 3:], TRUTH[:, 3:])
    assert "SimpleITK" in readers(volume)


def test_a_big_endian_series_without_meta_information_that_dcm2niix_splits(
    tmp_path: Path, workspace: Workspace
) -> None:
    def dates(data: Dataset, k: int) -> None:
        data.StudyDate, data.StudyTime, data.ProtocolName = "20200101", f"1{k}0000", f"P{k}"

    small = Small(count=3, syntax=ExplicitVRBigEndian)
    for path in write_small(tmp_path / "in", small, dates):
        content = path.read_bytes()
        start = content.index(b"\x00\x08\x00")  # the first element behind the meta information
        path.write_bytes(content[start:])
    _, array = convert_folder(tmp_path / "in", workspace)
    expected = np.stack([small_pixels(small, k).astype(int) - 1024 for k in range(3)])
    np.testing.assert_array_equal(array, expected)
