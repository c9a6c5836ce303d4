"""DICOM to array: ctenrich compared with dcm2niix and nibabel, SimpleITK, and only reading bytes and headers.

``python -m benchmarks.convert [--quick]``. 200 slices of 512 x 512 (40 with ``--quick``), uncompressed, page cache
warm, one run; all arrays are compared first. Ratios matter; those of CPU seconds (of this process and its
children) are meaningful on a busy machine too.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ctenrich.records import FetchedSeries, Instance, SeriesEntry
from ctenrich.series_store import SeriesStore
from ctenrich.settings import ConvertSettings, Settings
from ctenrich.stages.convert import convert_series, read_volume
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.tools import find_tool
from ctenrich.workspace import Workspace

STUDY, SERIES = "1.2.3.1", "1.2.3.2"
SETTINGS = Settings(convert=ConvertSettings(nifti=False))


def write_series(folder: Path, count: int) -> None:
    """A CT series with the header of an ordinary scanner and pixels that look like a patient (they compress alike)."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    j, i = np.ogrid[:512, :512]
    body = ((j - 256) / 180) ** 2 + ((i - 256) / 220) ** 2 < 1
    base = np.where(body, 1060 + 300 * gaussian_filter(rng.standard_normal((512, 512)), 8), 24)
    folder.mkdir()
    for k in range(count):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.4.{k + 1}"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = STUDY, SERIES, "1.2.3.3"
        data.Modality, data.ImageType, data.PatientPosition = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "HFS"
        for n, keyword in enumerate(("StudyDescription", "SeriesDescription", "ProtocolName", "StationName")):
            setattr(data, keyword, f"TEXT {n}")
        data.KVP, data.XRayTubeCurrent, data.ExposureTime, data.ConvolutionKernel = "120", "200", "500", "B30f"
        data.ImagePositionPatient, data.ImageOrientationPatient = [-250, -250, -300 + 1.5 * k], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness, data.InstanceNumber, data.SeriesNumber = [0.977, 0.977], 1.5, k + 1, 2
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 512, 512, 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = (base + rng.normal(0, 12, base.shape)).clip(0, 4095).astype(np.uint16).tobytes()
        data["PixelData"].VR = "OW"
        data.save_as(folder / f"{(k * 37) % count:04d}.dcm", enforce_file_format=True)


def floor(folder: Path) -> int:
    """Read every byte, and every header with pydicom."""
    from pydicom import dcmread

    total = 0
    for path in folder.iterdir():
        total += len(path.read_bytes())
        dcmread(path, stop_before_pixels=True)
    return total


def ours(fetched: FetchedSeries, workspace: Workspace) -> np.ndarray:
    """Sort and read into an array in memory."""
    series = sort_series(fetched, settings=SETTINGS, workspace=workspace)
    out = np.empty(series.shape, np.int16)
    read_volume(series, [Path(s.path) for s in series.slices], out, settings=SETTINGS)
    return out


def simpleitk(folder: Path) -> np.ndarray:
    """SimpleITK's series reader, with its own scan of the folder."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.GetArrayFromImage(reader.Execute())


def dcm2niix(folder: Path) -> np.ndarray:
    """dcm2niix with compression as the published pipeline ran it, then nibabel."""
    import nibabel

    with tempfile.TemporaryDirectory() as out:
        command = [str(find_tool("dcm2niix")), "-z", "y", "-m", "y", "-b", "n", "-f", "ct", "-o", out, str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        image = nibabel.load(next(Path(out).glob("*.nii.gz")))
        return np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1]


def processor() -> float:
    """CPU seconds of this process and of its finished children."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def timed(work: Callable[[], object], repeats: int) -> tuple[tuple[float, float], object]:
    """Best wall and CPU seconds of several repeats, and the last result."""
    best, cpu, result = np.inf, np.inf, None
    for _ in range(repeats):
        start, used = time.perf_counter(), processor()
        result = work()
        best, cpu = min(best, time.perf_counter() - start), min(cpu, processor() - used)
    return (best, cpu), result


def peak_memory(run: Path) -> int:
    """Largest growth of anonymous memory while the convert stage runs, bytes, in a process of its own."""
    script = """
import sys, threading, time
from pathlib import Path
from ctenrich.stages.convert import convert_series
from ctenrich.series_store import SeriesStore
from ctenrich.settings import ConvertSettings, Settings
from ctenrich.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
series = SeriesStore(workspace).sorted_series(sys.argv[2])
def memory():
    fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith(("RssAnon", "VmRSS")))
    return [int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon")]
start, peak, going = memory(), [0, 0], True
def watch():
    while going:
        peak[:] = map(max, peak, memory())
        time.sleep(0.005)
thread = threading.Thread(target=watch)
thread.start()
convert_series(series, settings=Settings(convert=ConvertSettings(nifti=True)), workspace=workspace)
going = False
thread.join()
print(peak[0] - start[0])
"""
    done = subprocess.run([sys.executable, "-c", script, str(run), SERIES], check=True, capture_output=True, text=True)
    return int(done.stdout)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40 slices")
    count, repeats = (40, 2) if parser.parse_args().quick else (200, 3)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "dicom")
        write_series(folder, count)
        workspace = Workspace(Path(name, "run"))
        entry = SeriesEntry("bench", "P", STUDY, SERIES, (Instance("", folder.as_uri() + "/"),))
        fetched = fetch_series(entry, settings=SETTINGS, workspace=workspace)

        base, _ = timed(lambda: floor(folder), repeats)
        mine, array = timed(lambda: ours(fetched, workspace), repeats)
        itk, other = timed(lambda: simpleitk(folder), repeats)
        nii, third = timed(lambda: dcm2niix(folder), 1)
        assert np.array_equal(array, other), "SimpleITK reads different voxels"
        assert np.array_equal(array, third), "dcm2niix reads different voxels"
        series = sort_series(fetched, settings=SETTINGS, workspace=workspace)
        SeriesStore(workspace).save(series, SERIES)
        stage, _ = timed(lambda: convert_series(series, settings=SETTINGS, workspace=workspace), repeats)
        both, _ = timed(lambda: convert_series(series, settings=Settings(), workspace=workspace), 1)
        growth = peak_memory(workspace.root)

    size = count * 512 * 512 * 2
    print(f"{count} slices of 512 x 512, {size / 1e6:.0f} MB as int16; equal voxels from all readers\n")
    print(f"{'what':58}{'s':>9}{'times ours':>12}{'CPU s':>9}{'times ours':>12}")
    for label, (seconds, used) in (
        ("read all bytes, pydicom headers (the floor)", base),
        ("ctenrich: sort and read into an array", mine),
        ("SimpleITK series reader with scan", itk),
        ("dcm2niix -z y, then nibabel", nii),
        ("ctenrich: whole convert stage (array on disk, hashed)", stage),
        ("ctenrich: the same with NIfTI, two readers compared", both),
    ):
        print(f"{label:58}{seconds:9.3f}{seconds / mine[0]:12.2f}{used:9.3f}{used / mine[1]:12.2f}")
    print(f"\nmemory growth of the convert stage (mapped file included): {growth / size:.2f} x the int16 array")
    for n, clock in enumerate(("clock", "processor")):
        faster = f"dcm2niix {nii[n] / mine[n]:.1f} >= 8, SimpleITK {itk[n] / mine[n]:.1f} >= 2"
        print(f"targets by the {clock}: {faster}, floor {mine[n] / base[n]:.1f} <= 3")
    return 0


if __name__ == "__main__":
    sys.exit(main())
