"""DICOM in: series and their geometry, what each is taken for, studies to cases; voxel values checked throughout."""

from __future__ import annotations

import gzip
import re
import shutil
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_toys import FLAIR, SPACING_MM, T1, T1C, T2, Examination, enhanced, voxels
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless, generate_uid

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import ReadingOptions, load_images
from a2fseg_cli.cases.names import Kind
from a2fseg_cli.cases.overview import overview
from a2fseg_cli.cases.selection import select_cases
from a2fseg_cli.cases.series_choice import SeriesChoice
from a2fseg_cli.cases.series_rules import recognise
from a2fseg_cli.cases.studies import cases_of_dicom, find_studies, with_series
from a2fseg_cli.dicom.pixels import read_frames
from a2fseg_cli.dicom.places import MOST_BYTES, holds_dicom, opened
from a2fseg_cli.dicom.reading import read_series, read_series_folder, series_in_folder
from a2fseg_cli.dicom.series import read_headers
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.modalities import BRATS_MODALITIES


@pytest.fixture
def study(tmp_path: Path) -> Examination:
    return Examination(tmp_path / "Case7")


def sequences(place: Path) -> dict[str, str | None]:
    """Return what each series is taken for, by its key; None where it is none."""
    headers = read_headers(place)
    return {r.series.key: r.sequence if r.kind is Kind.IMAGE else None for r in recognise(headers.series)}


def reason(place: Path) -> str:
    (read,) = recognise(read_headers(place).series)
    return read.reason


# --- voxels and geometry


def test_slices_are_sorted_and_geometry_is_that_of_the_headers(study: Examination) -> None:
    folder = study.add(5, T1)
    image = read_series_folder(folder)
    assert np.array_equal(image.array, voxels(5))  # the files' names are in another order
    assert image.geometry.size == (12, 16, 20)
    assert image.geometry.spacing_mm == (6.0, 4.0, 5.0)
    assert image.geometry.origin_mm == (-50.0, -32.0, -36.0)
    assert image.geometry.orientation == "LPS"
    assert str(image.path) == "series 5 (t1_se_tra)"
    assert image.warnings == ("series 5 (t1_se_tra): thick slices (5 x 4 x 6 mm); expect a coarser result than from "
                              "1 mm images",)  # fmt: skip


def test_an_oblique_series_is_as_simpleitk_and_nibabel_have_it(study: Examination, tmp_path: Path) -> None:
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.3, -0.2, 0.5)
    matrix = np.array(turn.GetMatrix()).reshape(3, 3)

    def oblique(index: int, data: Dataset) -> None:
        data.ImageOrientationPatient = [*matrix[:, 0].round(9), *matrix[:, 1].round(9)]
        data.ImagePositionPatient = [*(matrix @ [1.0, 2.0, 6.0 * (11 - index)]).round(6)]

    folder = study.add(5, T1, change=oblique)
    image = read_series_folder(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    oracle = reader.Execute()
    assert np.array_equal(image.array, voxels(5)[::-1])
    assert np.array_equal(image.array, sitk.GetArrayFromImage(oracle))
    assert image.geometry.spacing_mm[::-1] == pytest.approx(oracle.GetSpacing(), abs=1e-5)
    assert image.geometry.origin_mm == pytest.approx(oracle.GetOrigin(), abs=1e-6)
    assert image.geometry.direction == pytest.approx(oracle.GetDirection(), abs=1e-6)
    sitk.WriteImage(oracle, tmp_path / "oracle.nii.gz")
    affine = nibabel.load(tmp_path / "oracle.nii.gz").affine  # RAS
    corner = np.diag([-1, -1, 1]) @ image.geometry.corners_mm()[-1]
    assert corner == pytest.approx((affine @ [19, 15, 11, 1])[:3], abs=1e-3)


def test_every_slice_has_its_own_slope(study: Examination) -> None:
    def philips(index: int, data: Dataset) -> None:
        data.RescaleSlope, data.RescaleIntercept = 0.5 + index, -3

    image = read_series_folder(study.add(5, T1, change=philips))
    slopes = (0.5 + np.arange(12))[:, None, None]
    assert np.array_equal(image.array, (voxels(5) * slopes - 3).astype(np.float32))


def test_signed_values_and_drawings_in_the_free_bits(study: Examination) -> None:
    values = voxels(5).astype(np.int16) - 2048

    def drawn(index: int, data: Dataset) -> None:  # bits 12 to 15 are not the value's
        data.PixelRepresentation = 1
        data.PixelData = ((values[index].view(np.uint16) & 0x0FFF) | 0x5000).astype("<u2").tobytes()

    assert np.array_equal(read_series_folder(study.add(5, T1, change=drawn)).array, values)


@pytest.mark.parametrize(("compressor", "syntax"), [("", "1.2.5"), ("JPEG2000", "1.2.4.90"), ("JPEG", "1.2.4.70")])
def test_compressed_series(study: Examination, tmp_path: Path, compressor: str, syntax: str) -> None:
    """RLE by pydicom, the others, without loss, by GDCM."""

    def packed(index: int, data: Dataset) -> None:
        if compressor:
            pack(data, np.frombuffer(data.PixelData, "<u2").reshape(1, 16, 20), compressor, tmp_path / "packed.dcm")
        else:
            data.compress(RLELossless, generate_instance_uid=False)
        data.RescaleSlope, data.RescaleIntercept = 1 + index, 2

    folder = study.add(5, T1, change=packed)
    header = pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True)
    assert header.file_meta.TransferSyntaxUID == f"1.2.840.10008.{syntax}"
    expected = voxels(5) * (1.0 + np.arange(12))[:, None, None] + 2
    assert np.array_equal(read_series_folder(folder).array, expected.astype(np.float32))


def pack(data: Dataset, pixels: np.ndarray, compressor: str, temporary: Path) -> None:
    """Set pixels (frames, rows, columns) as GDCM packs them."""
    writer = sitk.ImageFileWriter()
    writer.SetUseCompression(True)
    writer.SetCompressor(compressor)
    writer.SetFileName(str(temporary))
    writer.Execute(sitk.GetImageFromArray(pixels))
    theirs = pydicom.dcmread(temporary)
    data.BitsStored, data.HighBit, data.PixelData = theirs.BitsStored, theirs.HighBit, theirs.PixelData
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = theirs.file_meta.TransferSyntaxUID


@pytest.mark.parametrize("compressed", [False, True])
def test_enhanced_multi_frame(study: Examination, tmp_path: Path, compressed: bool) -> None:
    """Frames in any order, each with a slope of its own, which GDCM would take from the first."""
    order, slopes = [3, 0, 1, 2, 11, 10, 9, 8, 4, 5, 6, 7], [1.0 + frame for frame in range(12)]
    data = enhanced(study, 9, voxels(9), order, slopes)
    if compressed:
        pack(data, voxels(9)[order], "JPEG2000", tmp_path / "packed.dcm")
    study.folder.mkdir()
    data.save_as(study.folder / "IM1", enforce_file_format=True)
    series = series_in_folder(study.folder / "IM1")  # one file is a place, too
    image = read_series(series)
    own = np.array([slopes[order.index(index)] for index in range(12)])[:, None, None]
    assert np.array_equal(image.array, (voxels(9) * own - 1).astype(np.float32))
    assert image.geometry.spacing_mm == SPACING_MM
    assert image.geometry.origin_mm == (-50.0, -32.0, -36.0)
    assert (series.fields["EchoTime"], series.fields["InversionTime"]) == (0.11, 2.5)
    assert sequences(study.folder) == {"9": "flair"}


def test_the_header_of_a_real_enhanced_file(tmp_path: Path) -> None:
    """A Philips MPRAGE, oblique, that nibabel carries for its own tests, without its voxels: nibabel's grid is ours."""
    stored = Path(nibabel.__file__).parent / "nicom" / "tests" / "data" / "philips_mprage.dcm.gz"
    if not stored.is_file():
        pytest.skip("this nibabel was installed without its test data")
    path = tmp_path / "mprage.dcm"
    path.write_bytes(gzip.decompress(stored.read_bytes()))
    series = series_in_folder(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel's, on how new its reader is
        from nibabel.nicom.dicomwrappers import wrapper_from_file

        affine = wrapper_from_file(path).affine  # LPS; first axis along the columns of the image
    assert series.geometry is not None
    assert series.geometry.size == (176, 256, 256)
    assert series.geometry.spacing_mm == pytest.approx((1, 1, 1), abs=1e-5)
    assert sequences(path) == {"301": "t1"}
    corners = [(affine @ [i, j, k, 1])[:3] for i in (0, 255) for j in (0, 255) for k in (0, 175)]
    distances = np.linalg.norm(np.array(corners)[:, None] - series.geometry.corners_mm()[None], axis=2)
    assert distances.min(axis=0).max() < 0.01
    assert distances.min(axis=1).max() < 0.01


@pytest.mark.parametrize("kind", ["RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"])
def test_ways_to_store_pixels(kind: str) -> None:
    """The same slice in the ways that pydicom carries for its own tests."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    if not (folder / f"MR_small_{kind}.dcm").is_file():
        pytest.skip("this pydicom was installed without its test data")
    plain = pydicom.dcmread(folder / "MR_small.dcm")
    expected = np.frombuffer(plain.PixelData, "<i2").reshape(1, 64, 64)
    assert np.array_equal(read_frames(folder / f"MR_small_{kind}.dcm"), expected)


# --- what is no volume


def _shear(index: int, data: Dataset) -> None:
    data.ImagePositionPatient = [-50.0, -32.0 + index * 6.0 * np.tan(np.radians(15)), -36.0 + 6.0 * index]


def _gap(index: int, data: Dataset) -> None:
    data.ImagePositionPatient = [-50.0, -32.0, 6.0 * index + (6.0 if index > 4 else 0.0)]


def _uneven(index: int, data: Dataset) -> None:
    data.ImagePositionPatient = [-50.0, -32.0, 6.0 * index + 0.4 * index * index]


def _wandering(index: int, data: Dataset) -> None:
    data.ImagePositionPatient = [-50.0 + 9.0 * (index % 2), -32.0, 6.0 * index]


def _orientations(index: int, data: Dataset) -> None:
    if index > 7:
        data.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def _doubled(index: int, data: Dataset) -> None:
    data.ImagePositionPatient = [-50.0, -32.0, 6.0 * (index % 8)]


def _colour(index: int, data: Dataset) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.PixelData = data.PixelData * 3


def _sizes(index: int, data: Dataset) -> None:
    if index == 3:
        data.Rows, data.Columns = 20, 16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_shear, "sheared by 15.0 degrees"),
        (_gap, "1 slice is missing (behind image 5: 12 mm instead of 6 mm)"),
        (_uneven, "its slices are 6.4 to 14.4 mm apart"),
        (_wandering, "do not lie on one line, up to 9.0 mm beside it"),
        (_orientations, "its images have 2 orientations"),
        (_doubled, "4 of its 12 images lie where another does"),
        (_colour, "its pixels are RGB"),
        (_sizes, "its images differ in size (20 x 16 and 16 x 20)"),
    ],
)
def test_what_is_no_volume_says_why(study: Examination, change: Callable[[int, Dataset], None], words: str) -> None:
    series = series_in_folder(study.add(5, T1C, change=change))
    with pytest.raises(InputError) as refused:
        read_series(series)
    assert str(refused.value).startswith("series 5 (t1_se_tra_KM): ")
    assert words in str(refused.value)
    (case,) = cases_of_dicom(study.folder)
    assert words in str(case.problem)
    assert "To go on without t1c, leave it aside" in str(case.problem)


def test_small_deviations_are_none(study: Examination) -> None:
    """Positions rounded to 0.1 mm of slices of 1.2 mm lie up to 4 % of a step off, and cosines to four digits."""

    def rounded(index: int, data: Dataset) -> None:
        data.ImagePositionPatient = [-50.0, -32.0, round(1.2 * index + 0.03, 1)]
        data.ImageOrientationPatient = [0.9999, 0.0001, 0, -0.0001, 0.9999, 0]

    image = read_series_folder(study.add(5, T1, voxels(1, (60, 16, 20)), change=rounded))
    assert image.geometry.spacing_mm == pytest.approx((1.2, 4.0, 5.0))


def test_one_slice_and_a_mosaic(study: Examination) -> None:
    one = study.add(5, T1, voxels(5)[:1])
    with pytest.raises(InputError, match="one slice only"):
        read_series_folder(one)
    mosaic = study.add(6, {**T2, "ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]})
    with pytest.raises(InputError, match="mosaics"):
        read_series_folder(mosaic)


@pytest.mark.parametrize("kept", [200, -100])
def test_a_truncated_file(study: Examination, kept: int) -> None:
    folder = study.add(5, T1)
    path = folder / "IM0000.dcm"
    path.write_bytes(path.read_bytes()[:kept])
    if kept > 0:  # its header is gone: one file less, which is the slice below
        headers = read_headers(folder)
        assert headers.damaged == (path,)
        (case,) = cases_of_dicom(study.folder, single=True)
        assert case.warnings == ("Case7: 1 DICOM files are damaged and are not read",)
    else:
        with pytest.raises(InputError, match=r"IM0000.dcm: truncated, 640 bytes of pixels promised, 540 are there"):
            read_series_folder(folder)


def test_truncated_compressed_file(study: Examination) -> None:
    def packed(index: int, data: Dataset) -> None:
        data.compress(RLELossless, generate_instance_uid=False)

    folder = study.add(5, T1, change=packed)
    path = folder / "IM0000.dcm"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"IM0000.dcm: .*(truncated|damaged)"):
        read_series_folder(folder)


def test_several_images_at_a_place_are_told_apart(study: Examination) -> None:
    """A double echo (proton density and T2) in one series is two; the long echo is the T2."""
    uid = generate_uid()
    for echo in (15, 90):
        tags = {"SeriesDescription": "PD/T2 tse", "RepetitionTime": 3000, "EchoTime": echo, "ScanningSequence": "SE"}
        study.add(5, tags, voxels(echo), uid=uid, place="S005")
    first, second = read_headers(study.folder).series
    assert (first.key, first.label) == ("5a", "series 5a (PD/T2 tse, echo 15 ms)")
    assert (second.key, second.label) == ("5b", "series 5b (PD/T2 tse, echo 90 ms)")
    assert np.array_equal(read_series(first).array, voxels(15))
    assert np.array_equal(read_series(second).array, voxels(90))
    assert sequences(study.folder) == {"5a": None, "5b": "t2"}
    (case,) = cases_of_dicom(study.folder)
    assert case.series["t2"].key == "5b"
    assert [why for _, why in case.aside] == ["left aside: proton density"]


@pytest.mark.parametrize(
    ("tag", "values", "part"),
    [
        ("AcquisitionNumber", (1, 2), "acquisition 2"),
        ("TemporalPositionIdentifier", (1, 2), "temporal position 2"),
        ("ImageType", (["ORIGINAL", "PRIMARY", "W"], ["ORIGINAL", "PRIMARY", "F"]), "type W"),
    ],
)
def test_what_else_tells_them_apart(study: Examination, tag: str, values: tuple[object, object], part: str) -> None:
    uid = generate_uid()
    for index, value in enumerate(values):
        study.add(5, {**T1, tag: value}, voxels(index), uid=uid, place="S005")
    parts = {one.part: one for one in read_headers(study.folder).series}
    assert len(parts) == 2
    assert np.array_equal(read_series(parts[part]).array, voxels(0 if tag == "ImageType" else 1))


def test_a_dynamic_series_is_one(study: Examination) -> None:
    uid = generate_uid()
    for moment in range(6):
        study.add(5, {**T1, "TemporalPositionIdentifier": moment}, uid=uid, place="S005")
    (series,) = read_headers(study.folder).series
    assert series.problem == "it holds 6 images of each place, as dynamic and diffusion series do. Expected one volume"


def test_an_acquisition_in_two_packages_is_one_volume(study: Examination) -> None:
    def packages(index: int, data: Dataset) -> None:
        data.AcquisitionNumber = 1 + index % 2

    assert np.array_equal(read_series_folder(study.add(5, T1, change=packages)).array, voxels(5))


def test_copies_of_files_are_read_once(study: Examination) -> None:
    folder = study.add(5, T1)
    for path in list(folder.iterdir())[:3]:
        shutil.copy(path, folder / f"copy of {path.name}")
    image = read_series_folder(folder)
    assert np.array_equal(image.array, voxels(5))
    assert image.warnings[0] == "series 5 (t1_se_tra): 3 files are copies of others and are not read"


# --- recognition


@pytest.mark.parametrize(
    ("tags", "sequence"),
    [
        (T1, "t1"),
        (T1C, "t1c"),
        (T2, "t2"),
        (FLAIR, "flair"),
        ({**T1, "SeriesDescription": "AX T1 +C"}, "t1c"),
        ({**T1, "SeriesDescription": "T1W C+"}, "t1c"),
        ({**T1, "SeriesDescription": "T1 con contraste"}, "t1c"),
        ({**T1, "SeriesDescription": "t1_se_tra nach KM"}, "t1c"),
        # Traps: words of an agent that deny it
        ({**T1, "SeriesDescription": "AX T1 PRE CONTRAST"}, "t1"),
        ({**T1, "SeriesDescription": "AX T1 WITHOUT"}, "t1"),
        ({**T1, "SeriesDescription": "AX T1 W/O GAD"}, "t1"),
        ({**T1, "SeriesDescription": "T1 C-"}, "t1"),
        ({**T1, "SeriesDescription": "T1 -C"}, "t1"),
        ({**T1, "SeriesDescription": "T1 sans inj"}, "t1"),
        ({**T1, "SeriesDescription": "AX T1 POST OP"}, "t1"),
        # The tag alone; and the tag that says there was none
        ({**T1, "ContrastBolusAgent": "10 ml Dotarem"}, "t1c"),
        ({**T1, "ContrastBolusAgent": "NONE"}, "t1"),
        ({**T1, "ContrastBolusAgent": "None given"}, "t1"),
        ({**T1, "ContrastBolusAgent": "-"}, "t1"),
        ({**T1, "ContrastBolusAgent": "kein KM"}, "t1"),
        ({**T1, "ContrastBolusAgent": "Gadovist 0 ml"}, "t1"),
        ({**T1, "ContrastBolusAgent": "Gadavist 7.0 ml"}, "t1c"),
        ({**T1, "SeriesDescription": "T1 vor KM"}, "t1"),
        ({**T1, "SeriesDescription": "T1 before contrast"}, "t1"),
        ({**T1, "SeriesDescription": "T1nachKM"}, "t1c"),
        ({**T1, "SeriesDescription": "t1_se_tra_mitKM"}, "t1c"),
        ({**T1, "SeriesDescription": "T1 apr\xe8s injection", "SpecificCharacterSet": "ISO_IR 100"}, "t1c"),
        ({**T1, "SeriesDescription": "T1 con contrasto"}, "t1c"),
        # An agent changes neither T2 nor FLAIR
        ({**FLAIR, "ContrastBolusAgent": "Gadovist"}, "flair"),
        ({**T2, "SeriesDescription": "T2 TSE POST GAD"}, "t2"),
        # A T1 FLAIR inverts after 0.8 s; an MPRAGE has an inversion time too
        ({**T1, "SeriesDescription": "Sag T1 FLAIR", "InversionTime": 800, "RepetitionTime": 2200}, "t1"),
        ({**FLAIR, "SeriesDescription": "Ax T2 FLAIR"}, "flair"),
        (
            {"SeriesDescription": "t1_mpr_sag_p2_iso", "ScanningSequence": ["GR", "IR"], "InversionTime": 900,
             "RepetitionTime": 1900, "EchoTime": 2.5},
            "t1",
        ),
        ({"SeriesDescription": "3D", "SequenceName": "*tfl3d1_16ns", "ScanningSequence": ["GR", "IR"]}, "t1"),
        # Philips: prefixes, slashes, a b-value of 0 in every file
        ({"SeriesDescription": "sT1W_3D_TFE", "DiffusionBValue": 0.0, "ScanningSequence": "GR", "EchoTime": 3.5}, "t1"),
        ({**T1, "SeriesDescription": "T1W/SE"}, "t1"),
        # GE
        ({"SeriesDescription": "AX 3D FSPGR BRAVO +C", "ScanningSequence": "GR", "EchoTime": 3, "InversionTime": 450},
         "t1c"),
        ({**T2, "SeriesDescription": "Ax T2 FRFSE PROPELLER"}, "t2"),
        # The times alone
        ({**FLAIR, "SeriesDescription": "ax"}, "flair"),
        # The scanner of TCGA-FG-6692
        ({**T1, "SeriesDescription": "MRHR T1 AX POST GAD SE"}, "t1c"),
        ({**FLAIR, "SeriesDescription": "MRHR FLAIR AX SE IR"}, "flair"),
    ],
)  # fmt: skip
def test_recognition(study: Examination, tags: dict[str, object], sequence: str) -> None:
    assert sequences(study.add(5, tags)) == {"5": sequence}


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"SeriesDescription": "localizer"}, "a localiser"),
        ({**T1, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localiser"),
        ({"SeriesDescription": "ep2d_diff_ADC", "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "diffusion"),
        ({**T2, "DiffusionBValue": 1000.0}, "diffusion"),
        ({**T1, "ImageType": ["DERIVED", "SECONDARY", "MPR", "CSA MPR"]}, "a reformat of another series"),
        ({**T1, "ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}, "a reformat of another series"),
        ({**T1, "ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "a projection"),
        ({**T1, "ImageType": ["DERIVED", "SECONDARY", "OTHER"]}, "computed from other images"),
        ({**T1, "Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "CT, not MR"),
        ({"SeriesDescription": "perf_dsc", "ScanningSequence": "EP"}, "perfusion or dynamic images"),
        ({"SeriesDescription": "SWI_Images"}, "susceptibility images (SWI, T2*)"),
        ({**T1, "ImageType": ["ORIGINAL", "PRIMARY", "P"]}, "phase or complex images"),
        ({"SeriesDescription": "AX GRE", "ScanningSequence": "GR", "EchoTime": 20}, "susceptibility images (SWI, T2*)"),
        ({**T2, "SeriesDescription": "COR STIR", "InversionTime": 150}, "another kind of inversion recovery"),
        ({"SeriesDescription": "TOF_3D"}, "angiography"),
        ({**T1, "SeriesDescription": "SUB T1"}, "a subtraction"),
        ({**T2, "SeriesDescription": "SAG T2 C-SPINE"}, "another part of the body"),
        ({**T2, "BodyPartExamined": "CSPINE"}, "another part of the body"),
        ({**T2, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "a screenshot or a scanned page"),
        ({"SeriesDescription": "ax"}, "nothing in its header says which sequence it is"),
    ],
)
def test_left_aside(study: Examination, tags: dict[str, object], why: str) -> None:
    folder = study.add(5, tags)
    assert sequences(folder) == {"5": None}
    assert reason(folder) == why


def test_too_little_of_the_head(study: Examination) -> None:
    assert reason(study.add(5, T1, voxels(1)[:7])) == "less than 60 mm of the head"

    def thin(index: int, data: Dataset) -> None:
        data.ImagePositionPatient = [0, 0, 3.0 * index]  # 12 slices of 3 mm: a pituitary gland

    assert reason(study.add(6, T1, change=thin)) == "less than 60 mm of the head"


def test_an_agent_in_every_header_says_nothing(study: Examination) -> None:
    """Set for the whole examination before it began: the words of the other T1 tell."""
    agent = {"ContrastBolusAgent": "Gadovist"}
    study.add(2, {**T2, **agent})
    study.add(3, {**T1, **agent})
    study.add(4, {**FLAIR, **agent})
    alone = {one.series.key: one for one in recognise(read_headers(study.folder).series)}
    assert alone["3"].kind is Kind.UNCLEAR
    assert "every series of the examination names a contrast agent" in alone["3"].reason
    study.add(9, {**T1C, **agent})
    assert sequences(study.folder) == {"2": "t2", "3": "t1", "4": "flair", "9": "t1c"}


def test_a_silent_t1_after_the_injection_has_contrast(study: Examination) -> None:
    study.add(3, T1, clock="100000")
    study.add(7, T1C, clock="103000")
    study.add(8, {**T1, "SeriesDescription": "t1_se_cor"}, clock="103500")
    study.add(9, {**T1, "SeriesDescription": "t1_se_sag nativ"}, clock="104000")
    assert sequences(study.folder) == {"3": "t1", "7": "t1c", "8": "t1c", "9": "t1"}


def test_a_silent_t1_after_a_perfusion_cannot_be_told(study: Examination) -> None:
    study.add(5, {"SeriesDescription": "ep2d_perf_dsc", "ScanningSequence": "EP"}, clock="101000")
    study.add(6, {**T1, "SeriesDescription": "t1_mprage"}, clock="102000")
    (case,) = cases_of_dicom(study.folder)
    assert "series 6 (t1_mprage): 20 x 16 x 12 voxels of 5 x 4 x 6 mm, LPS; may be t1 or t1c" in str(case.problem)
    study.add(2, T1, clock="100000")
    (case,) = cases_of_dicom(study.folder)
    assert (case.series["t1"].number, case.series["t1c"].number) == (2, 6)


def test_labelled_blood_needs_no_agent(study: Examination) -> None:
    study.add(5, {"SeriesDescription": "perfusion 3D ASL"}, clock="101000")
    study.add(6, T1, clock="102000")
    assert sequences(study.folder) == {"5": None, "6": "t1"}


def test_a_flair_without_its_inversion_time(study: Examination) -> None:
    assert sequences(study.add(4, {key: FLAIR[key] for key in FLAIR if key != "InversionTime"})) == {"4": "flair"}


def test_an_agent_entered_before_it_is_given(study: Examination) -> None:
    tags = {**T1, "ContrastBolusAgent": "Gadovist", "ContrastBolusStartTime": "101500"}
    study.add(3, tags, clock="100000")
    study.add(4, tags, clock="102000")
    assert sequences(study.folder) == {"3": "t1", "4": "t1c"}


def test_ge_has_the_examination_as_protocol(study: Examination) -> None:
    """BRAIN T1 W GAD is the name of all of it and says nothing of the series that is described as `ax`."""
    protocol = {"ProtocolName": "BRAIN T1 W GAD"}
    study.add(2, {"SeriesDescription": "ax", **protocol})
    study.add(3, {**T2, **protocol})
    assert sequences(study.folder) == {"2": None, "3": "t2"}


# --- studies and cases


def whole_study(study: Examination) -> None:
    study.add(1, {"SeriesDescription": "localizer"}, voxels(1)[:3])
    study.add(2, T1)
    study.add(3, T2)
    study.add(4, FLAIR)
    study.add(5, {"SeriesDescription": "ADC", "ImageType": ["DERIVED", "PRIMARY", "ADC"]})
    study.add(6, T1C)
    study.add(7, {**T1C, "ImageType": ["DERIVED", "SECONDARY", "MPR"]})
    study.add(8, {"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"})


def test_a_study_is_a_case(study: Examination) -> None:
    whole_study(study)
    (study.folder / "readme.txt").write_text("viewer")
    (study.folder / "DICOMDIR").write_bytes(b"\0" * 200)
    assert read_headers(study.folder).others == 2
    (case,) = cases_of_dicom(study.folder, single=True)
    assert (case.name, case.problem, case.warnings) == ("Case7", None, ())
    assert {m: one.number for m, one in case.series.items()} == {"t1": 2, "t1c": 6, "t2": 3, "flair": 4}
    assert list(case.images) == ["t1", "t1c", "t2", "flair"]
    assert {one.number: why for one, why in case.aside} == {
        1: "left aside: a localiser",
        5: "left aside: diffusion",
        7: "left aside: a reformat of another series",
        8: "left aside: CT, not MR",
    }
    (shown,) = overview([case], ReadingOptions())
    assert shown.problems == []
    rows = {row.file: row for row in shown.files}
    taken = rows["series 6 (t1_se_tra_KM)"]
    assert (taken.modality, taken.size, taken.spacing_mm, taken.orientation) == ("t1c", (12, 16, 20), SPACING_MM, "LPS")
    assert 'SeriesDescription: "t1_se_tra_KM"' in taken.decided
    assert rows["series 5 (ADC)"].modality == "-"
    assert "DOE" not in str(shown)
    assert "JANE" not in str(case)


def test_all_files_in_one_folder_without_extension(study: Examination) -> None:
    for number, tags in ((2, T1), (3, T2), (6, T1C)):
        study.add(number, tags, place="", suffix="")
    (case,) = cases_of_dicom(study.folder)
    assert case.problem is None
    images = {modality: read_series(one).array for modality, one in case.series.items()}
    assert all(np.array_equal(images[m], voxels(number)) for m, number in (("t1", 2), ("t2", 3), ("t1c", 6)))


def brain(seed: int) -> np.ndarray:
    """Return 12-bit values in a ball of 50 mm and 0 around it, on the toy grid."""
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (12, 16, 20)), indexing="ij")
    ball = (6 * z) ** 2 + (4 * y) ** 2 + (5 * x) ** 2 < 31**2
    return np.where(ball, voxels(seed) // 4 + 500, 0).astype(np.uint16)


def test_a_case_of_series_is_read_as_one_of_files(study: Examination) -> None:
    study.add(2, T2, brain(1))
    study.add(4, FLAIR, brain(2))
    (case,) = cases_of_dicom(study.folder)
    read = load_images(case, BRATS_MODALITIES, ReadingOptions(allow_skull=True))
    assert np.array_equal(read.images["flair"].array, brain(2))
    assert read.reference == "t2"
    assert read.geometry.spacing_mm == SPACING_MM
    before = case.state("t2")
    shutil.copytree(study.folder, study.folder.with_name("Copy"), copy_function=shutil.copy2)
    (copied,) = cases_of_dicom(study.folder.with_name("Copy"))
    assert copied.state("t2") == before
    next(study.folder.glob("S002/*0003*")).touch()
    assert case.state("t2") != before


def test_the_command_takes_series(
    run: Callable[..., tuple[int, str, str]], toy_weights: Path, study: Examination, tmp_path: Path
) -> None:
    t2, flair, mask = study.add(2, T2, brain(1)), study.add(4, FLAIR, brain(2)), tmp_path / "seg.nii.gz"
    inputs = ("predict", "--t2", t2, "--flair", flair, "--weights", toy_weights, "--allow-skull")
    code, out, _ = run(*inputs, "--dry-run", "--json")
    assert code == 0
    assert '"series 4 (t2_tirm_tra_dark-fluid)"' in out
    assert run(*inputs, "-o", mask)[0] == 0
    written = nibabel.load(mask)
    assert written.shape == (20, 16, 12)
    assert written.affine == pytest.approx(np.array(  # RAS
        [[-5, 0, 0, 50], [0, -4, 0, 32], [0, 0, 6, -36], [0, 0, 0, 1]]))  # fmt: skip


def test_two_candidates_are_listed_and_one_is_chosen(study: Examination) -> None:
    def thin(index: int, data: Dataset) -> None:
        data.ImagePositionPatient = [-50.0, -32.0, 3.0 * index]

    study.add(2, T1C)
    study.add(3, {**T1C, "SeriesDescription": "t1_thin_KM"}, voxels(3, (24, 16, 20)), change=thin)
    study.add(4, FLAIR)
    (case,) = cases_of_dicom(study.folder)
    assert "2 series may be t1c" in str(case.problem)
    assert "  series 2 (t1_se_tra_KM): 20 x 16 x 12 voxels of 5 x 4 x 6 mm, LPS; SeriesDesc" in str(case.problem)
    assert "  series 3 (t1_thin_KM): 20 x 16 x 24 voxels of 5 x 4 x 3 mm, LPS; SeriesDesc" in str(case.problem)
    (thinnest,) = cases_of_dicom(study.folder, choice=SeriesChoice(prefer="thinnest"))
    assert thinnest.series["t1c"].number == 3
    assert thinnest.warnings == ("t1c: series 3 (t1_thin_KM) (20 x 16 x 24 voxels of 5 x 4 x 3 mm, LPS) taken as the "
                                 "thinnest, not series 2 (t1_se_tra_KM)",)  # fmt: skip
    for key in ("2", case.aside[0][0].uid[-12:]):
        (chosen,) = cases_of_dicom(study.folder, choice=SeriesChoice({key: "t1c"}))
        assert (chosen.problem, chosen.series["t1c"].number) == (None, 2)
        assert chosen.decided["t1c"] == "chosen"
    (without,) = cases_of_dicom(study.folder, choice=SeriesChoice({"3": "-"}))
    assert (without.problem, without.series["t1c"].number) == (None, 2)
    with pytest.raises(InputError, match=r"no series 17\. There are 2, 3, 4\."):
        cases_of_dicom(study.folder, choice=SeriesChoice({"17": "t1"}))
    with pytest.raises(UsageError, match="expected thinnest"):
        SeriesChoice(prefer="best")
    with pytest.raises(UsageError, match="expected one of t1, t1c, t2, flair, or -"):
        cases_of_dicom(study.folder, choice=SeriesChoice({"2": "pd"}))
    (alias,) = cases_of_dicom(study.folder, choice=SeriesChoice({"2": "T1Gd"}))
    assert alias.series["t1c"].number == 2


def test_a_series_left_aside_can_be_chosen(study: Examination) -> None:
    """The axial reformat of a sagittal acquisition is all that some archives keep."""
    study.add(7, {**T1C, "ImageType": ["DERIVED", "SECONDARY", "MPR"]})
    study.add(8, {"SeriesDescription": "ax"})
    (case,) = cases_of_dicom(study.folder)
    assert "none of its 2 series is one of the sequences" in str(case.problem)
    (chosen,) = cases_of_dicom(study.folder, choice=SeriesChoice({"7": "t1c"}))
    assert chosen.warnings == ("series 8 (ax): left aside: nothing in its header says which sequence it is",)
    assert np.array_equal(read_series(chosen.series["t1c"]).array, voxels(7))


def test_two_series_with_one_number(study: Examination) -> None:
    study.add(5, T2, place="A", clock="100000")
    study.add(5, FLAIR, place="B", clock="100500")
    assert sequences(study.folder) == {"5a": "t2", "5b": "flair"}
    (case,) = cases_of_dicom(study.folder, choice=SeriesChoice({"5": "t2"}))
    assert "2 series are chosen as t2. Say which." in str(case.problem)
    (case,) = cases_of_dicom(study.folder, choice=SeriesChoice({"5b": "t2", "5a": "-"}))
    assert list(case.series) == ["t2"]


def test_a_broken_series_gives_way_to_a_whole_one(study: Examination) -> None:
    study.add(2, T1C, change=_gap)
    study.add(3, T1C)
    (case,) = cases_of_dicom(study.folder)
    assert case.series["t1c"].number == 3
    assert "series 2 (t1_se_tra_KM): not taken as t1c: 1 slice is missing" in case.warnings[0]


def test_unclear_series(study: Examination) -> None:
    study.add(2, T2)
    study.add(3, {**T1, "SeriesDescription": "POST AX T1"})
    (case,) = cases_of_dicom(study.folder)
    assert "it cannot be told which sequence these series are" in str(case.problem)
    (left,) = cases_of_dicom(study.folder, choice=SeriesChoice(ignore_unknown=True))
    assert left.problem is None
    assert list(left.series) == ["t2"]
    assert left.warnings[0].startswith("series 3 (POST AX T1): left aside: may be t1 or t1c")
    study.add(1, T1)
    (told,) = cases_of_dicom(study.folder)  # with a T1 beside it, it is the other one
    assert told.series["t1c"].number == 3
    assert told.warnings == ("series 3 (POST AX T1): taken as t1c, since series 1 (t1_se_tra) is t1",)


def test_two_dates_are_no_case(tmp_path: Path) -> None:
    march, june = (Examination(tmp_path / "P" / name, date=date) for name, date in
                   (("one", "20260301"), ("two", "20260601")))  # fmt: skip
    march.add(2, T1C)
    june.add(2, FLAIR)
    march.add(9, T2, place="../mixed")
    june.add(9, T2, place="../mixed")
    with pytest.raises(InputError) as refused:
        cases_of_dicom(tmp_path / "P", single=True)
    assert "2 studies of one patient" in str(refused.value)
    assert "20260301: 2 series" in str(refused.value)
    assert "DOE" not in str(refused.value)
    (case,) = cases_of_dicom(tmp_path / "P", choice=SeriesChoice(study=june.uid[-8:]), single=True)
    assert set(case.series) == {"t2", "flair"}
    with pytest.raises(InputError, match="no study 20250101"):
        cases_of_dicom(tmp_path / "P", choice=SeriesChoice(study="20250101"))
    cases = cases_of_dicom(tmp_path / "P")
    assert [(case.name, set(case.series)) for case in cases] == [
        ("P_20260301", {"t1c", "t2"}),
        ("P_20260601", {"t2", "flair"}),
    ]
    t1c, flair = series_in_folder(march.folder / "S002"), series_in_folder(june.folder / "S002")
    with pytest.raises(InputError, match="several studies of one patient"):
        with_series(Case("P", {}), {"t1c": t1c, "flair": flair})
    with pytest.raises(InputError, match="2 patients"):
        with_series(Case("P", {}), {"t1c": t1c, "flair": replace(flair, patient="another")})


def test_series_are_given_one_by_one(study: Examination, tmp_path: Path) -> None:
    """Also beside a file: a series of the scanner and a mask-free NIfTI of another program."""
    t1c, flair = study.add(2, T1C), study.add(4, FLAIR)
    (case,) = select_cases(None, given={"t1c": t1c, "flair": flair})
    assert (case.name, set(case.series), case.problem) == ("S002", {"t1c", "flair"}, None)
    assert np.array_equal(read_series(case.series["flair"]).array, voxels(4))
    sitk.WriteImage(sitk.GetImageFromArray(voxels(3)), tmp_path / "t2.nii.gz")
    (mixed,) = select_cases(None, given={"t2": tmp_path / "t2.nii.gz", "t1c": t1c})
    assert (mixed.name, set(mixed.series)) == ("t2", {"t1c"})
    assert set(mixed.files) == {tmp_path / "t2.nii.gz", *t1c.iterdir()}
    (slice_,) = select_cases(None, given={"t1c": t1c / "IM0003.dcm"})
    with pytest.raises(InputError, match=r"one slice only. Expected a volume; of a file that is one slice give"):
        load_images(slice_, BRATS_MODALITIES)


def test_a_batch_is_named_by_its_folders(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    for name, patient, dates in (("A", "DOE^JANE", ("20260301",)), ("B", "ROE^RICHARD", ("20260301", "20260401"))):
        for date in dates:
            Examination(cohort / name / date, patient, date).add(2, T1C)
    Examination(cohort / "C", "ONE", "20260301").add(2, T1C)
    Examination(cohort / "C", "TWO", "20260301").add(3, T1C)
    cases = cases_of_dicom(cohort)
    assert [case.name for case in cases] == ["A", "B_20260301", "B_20260401", "C"]
    assert [case.problem is None for case in cases] == [True, True, True, False]
    assert "2 studies of 2 patients" in str(cases[-1].problem)
    assert "ROE" not in str(cases)


def test_the_study_is_named_by_its_date(study: Examination) -> None:
    study.add(2, T1)
    study.add(3, T2)
    (one,) = find_studies(study.folder)
    assert one.label == f"study of 20260301 (UID ...{study.uid[-8:]})"
    with pytest.raises(InputError, match="no such"):
        find_studies(study.folder / "nothing")
    (study.folder.parent / "empty").mkdir()
    with pytest.raises(InputError, match="no DICOM image"):
        find_studies(study.folder.parent / "empty")


def test_a_folder_with_several_series_is_no_series(study: Examination) -> None:
    study.add(2, T1)
    study.add(3, T2)
    with pytest.raises(InputError) as refused:
        read_series_folder(study.folder)
    assert "2 series. Expected one" in str(refused.value)
    assert "series 3 (t2_tse_tra): 20 x 16 x 12 voxels of 5 x 4 x 6 mm, LPS" in str(refused.value)


# --- zip


def packed(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


def test_a_zip_is_unpacked_and_gone(study: Examination) -> None:
    whole_study(study)
    (study.folder / "viewer.exe").write_bytes(b"MZ" * 500)
    archive = packed(study.folder)
    assert holds_dicom(archive)
    with opened(archive) as folder:
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        assert not list(folder.rglob("viewer.exe"))
        (case,) = cases_of_dicom(folder)
        assert (case.name, case.problem) == ("Case7", None)
        assert np.array_equal(read_series(case.series["t1c"]).array, voxels(6))
        state = case.state("t1c")
    assert not folder.parent.exists()
    with opened(archive) as again:
        assert cases_of_dicom(again)[0].state("t1c") == state
    with pytest.raises(InputError, match="stop"), opened(archive) as folder:
        raise InputError("stop")
    assert not folder.parent.exists()


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_a_zip_that_leads_out_is_refused(study: Examination, name: str) -> None:
    folder = study.add(2, T1)
    archive = packed(study.folder)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, (folder / "IM0000.dcm").read_bytes())
    with pytest.raises(InputError, match="leads out of its folder"), opened(archive):
        pass
    assert not (study.folder.parent / "evil").exists()


def test_bad_zips(study: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    study.add(2, T1)
    archive = packed(study.folder)
    monkeypatch.setattr("a2fseg_cli.dicom.places.MOST_BYTES", 1000)
    with pytest.raises(InputError, match="more than an examination has"), opened(archive):
        pass
    monkeypatch.setattr("a2fseg_cli.dicom.places.MOST_BYTES", MOST_BYTES)
    archive.write_bytes(archive.read_bytes()[:-300])
    with pytest.raises(InputError, match="damaged zip"), opened(archive):
        pass


def test_what_holds_dicom(study: Examination, tmp_path: Path) -> None:
    study.add(2, T1, suffix="")
    assert holds_dicom(study.folder)
    (tmp_path / "nifti").mkdir()
    (tmp_path / "nifti" / "t1.nii.gz").write_bytes(b"\x1f\x8b" + b"0" * 400)
    assert not holds_dicom(tmp_path / "nifti")


def test_a_file_without_preamble(study: Examination) -> None:
    folder = study.add(2, T1)
    for path in folder.iterdir():  # as exports of the nineties: the tags alone, implicit little endian
        data = pydicom.dcmread(path)
        del data.file_meta
        data.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert np.array_equal(read_series_folder(folder).array, voxels(2))


# --- whole


def test_headers_of_a_large_study_take_seconds(study: Examination) -> None:
    study.add(2, T1, voxels(2, (300, 4, 4)))
    start = time.perf_counter()
    (series,) = read_headers(study.folder).series
    assert len(series.slices) == 300
    assert time.perf_counter() - start < 6  # 0.4 s on an idle machine


@pytest.mark.slow
def test_a_real_patient_there_and_back(cases_dir: Path, tmp_path: Path) -> None:
    """BraTS20_Training_001 as four series of 155 slices: voxels and grid are those of its NIfTI files."""
    folder = cases_dir / "BraTS20_Training_001"
    study = Examination(tmp_path / "study")
    for number, (ending, tags) in enumerate({"t1": T1, "t1ce": T1C, "t2": T2, "flair": FLAIR}.items(), 1):
        study.add_image(number, tags, sitk.ReadImage(next(folder.glob(f"*_{ending}.nii*"))))
    (case,) = cases_of_dicom(study.folder)
    assert case.problem is None
    assert len(case.series) == 4
    read = load_images(case, BRATS_MODALITIES)
    for modality, ending in {"t1": "t1", "t1c": "t1ce", "t2": "t2", "flair": "flair"}.items():
        image = sitk.ReadImage(next(folder.glob(f"*_{ending}.nii*")))
        grid = read.images[modality].geometry
        assert np.array_equal(read.images[modality].array, sitk.GetArrayFromImage(image))
        assert grid.spacing_mm[::-1] == pytest.approx(image.GetSpacing())
        assert grid.origin_mm == pytest.approx(image.GetOrigin())
        assert grid.direction == pytest.approx(image.GetDirection())


@pytest.mark.slow
def test_a_raw_person_by_the_scanner_s_own_names(cases_dir: Path, tmp_path: Path) -> None:
    """TCGA-FG-6692 as DICOM, oblique slices of 5.5 mm, under the descriptions and nothing else: grids and voxels."""
    folder = cases_dir.parent / "raw" / "TCGA-FG-6692"
    if not folder.is_dir():
        pytest.skip("the raw scans (../shared/data/raw) are not on this machine")
    numbers = {path: re.search(r"_SE(?:_IR)?_(\d+)_", path.name) for path in folder.glob("*.nii.gz")}
    paths = {int(number[1]): path for path, number in numbers.items() if number}
    study = Examination(tmp_path / "study")
    for number, path in paths.items():
        study.add_image(number, {"SeriesDescription": path.name[:-7]}, sitk.ReadImage(path))
    (case,) = cases_of_dicom(study.folder, single=True)
    assert {modality: one.number for modality, one in case.series.items()} == {
        "t1": 10,
        "t1c": 13,
        "t2": 2,
        "flair": 5,
    }
    for one in case.series.values():
        image, oracle = read_series(one), sitk.ReadImage(paths[one.number or 0])
        back = sitk.GetImageFromArray(image.array)  # its slices may count the other way
        back.SetSpacing(image.geometry.spacing_mm[::-1])
        back.SetOrigin(image.geometry.origin_mm)
        back.SetDirection(image.geometry.direction)
        there = sitk.Resample(back, oracle, sitk.Transform(), sitk.sitkNearestNeighbor)
        assert np.array_equal(sitk.GetArrayFromImage(there), sitk.GetArrayFromImage(oracle))


def test_a_part_of_the_only_series_of_a_sequence_is_told(tmp_path: Path) -> None:
    """An export that broke off: 9 of the slices of T1c, 54 mm; with a whole T1c nobody misses them."""
    study = Examination(tmp_path / "S1")
    study.add(2, T1C, voxels(2)[:9])
    study.add(3, FLAIR)
    (case,) = cases_of_dicom(tmp_path / "S1")
    assert set(case.series) == {"flair"}
    (told,) = case.warnings
    assert told.startswith("series 2 (t1_se_tra_KM): left aside: less than 60 mm of the head. Is it whole?")
    study.add(4, T1C)
    (case,) = cases_of_dicom(tmp_path / "S1")
    assert set(case.series) == {"flair", "t1c"}
    assert case.warnings == ()
