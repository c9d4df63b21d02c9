"""DICOM Segmentations: the same voxels in the same place, read back by highdicom, GDCM, dcmqi; checked by dciodvfy."""

from __future__ import annotations

import errno
import locale
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_person import OBLIQUE, PERSON, multiframe, series
from pydicom.sr.codedict import codes

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.dicom import segmentation
from a2fseg_cli.dicom.segmentation import check_source, write_segmentation
from a2fseg_cli.dicom.source_series import read_source_series
from a2fseg_cli.errors import InputError, ResourceError, UsageError
from a2fseg_cli.imaging.geometry import Geometry, same_grid
from a2fseg_cli.imaging.segments import Segment, plain_text
from a2fseg_cli.reporting.label_tables import segments

SIZE = (6, 7, 9)
IMAGE = np.arange(378).reshape(SIZE)
# Slices 0 and 5 are empty. NCR 2 voxels, ED 27 - 6, ET 4.
CLASSES = np.zeros(SIZE, np.uint8)
CLASSES[1:4, 2:5, 3:6] = 2
CLASSES[2, 3, 3:6] = 3
CLASSES[4, 5, 7] = 3
CLASSES[3, 2:5, 4] = 1
SEGMENTS = segments(ModelConfig().classes, (0, 1, 2, 4))
MADE_BY = {"version": "1.2.3", "weights_name": "big", "weights_sha256": "ab" * 32, "modalities": ("t1c", "flair")}


@pytest.fixture
def source(tmp_path: Path) -> list[Path]:
    return series(tmp_path / "t1c", IMAGE)


def written(path: Path, classes: np.ndarray, files: list[Path], geometry: Geometry | None = None, **more) -> Path:
    """Write a segmentation of a series, on its own grid unless another is given."""
    geometry = geometry or read_source_series(files).geometry
    write_segmentation(classes, more.pop("segments", SEGMENTS), geometry, files, path, **(MADE_BY | more))
    return path


def voxels_by_source(path: Path, files: list[Path]) -> np.ndarray:
    """Return classes (D, H, W), the slices in the order of their place, as highdicom finds them by their references."""
    headers = [pydicom.dcmread(file) for file in files]
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    headers.sort(key=lambda header: np.dot(header.ImagePositionPatient, normal))
    uids = [header.SOPInstanceUID for header in headers]
    return highdicom.seg.segread(path).get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )


def test_the_source_lies_where_gdcm_finds_it(source: list[Path]) -> None:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(source[0].parent)))
    image = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), IMAGE)
    found = read_source_series(source)
    expected = Geometry(SIZE, image.GetSpacing()[::-1], image.GetOrigin(), image.GetDirection())
    assert same_grid(found.geometry, expected, 1e-6)
    assert found.geometry.spacing_mm == pytest.approx((3.0, 0.5, 0.75))
    assert [header.InstanceNumber for header in found.headers] == [1, 2, 3, 4, 5, 6]


def test_voxels_come_back_slice_by_slice(source: list[Path], tmp_path: Path) -> None:
    path = written(tmp_path / "out" / "seg.dcm", CLASSES, source)
    np.testing.assert_array_equal(voxels_by_source(path, source), CLASSES)
    assert os.listdir(path.parent) == ["seg.dcm"]


def test_voxels_come_back_from_their_place(source: list[Path], tmp_path: Path) -> None:
    """Slice k, row i, column j lies at (-10, 20, 30) + 3 k normal + 0.5 i down + 0.75 j right."""
    volume = highdicom.seg.segread(written(tmp_path / "seg.dcm", CLASSES, source)).get_volume(combine_segments=True)
    right, down = np.array(OBLIQUE[:3]), np.array(OBLIQUE[3:])
    steps_mm = np.stack([3 * np.cross(right, down), 0.5 * down, 0.75 * right])
    for number in (1, 2, 3):
        places = volume.map_indices_to_reference(np.argwhere(volume.array == number))
        expected = (-10, 20, 30) + np.argwhere(number == CLASSES) @ steps_mm
        np.testing.assert_allclose(_sorted(places), _sorted(expected), atol=1e-6)


def _sorted(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(np.round(points, 3).T)]


@pytest.mark.parametrize(
    ("permutation", "flips"), [((0, 1, 2), (0,)), ((0, 1, 2), (1, 2)), ((2, 0, 1), (0,)), ((1, 2, 0), ())]
)
def test_axes_in_another_order_are_turned_back(
    source: list[Path], tmp_path: Path, permutation: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    image = sitk.GetImageFromArray(CLASSES)
    geometry = read_source_series(source).geometry
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    image = sitk.PermuteAxes(image, [2 - axis for axis in permutation[::-1]])
    image = sitk.Flip(image, [2 - axis in flips for axis in range(3)])
    turned = Geometry(image.GetSize()[::-1], image.GetSpacing()[::-1], image.GetOrigin(), image.GetDirection())
    path = written(tmp_path / "seg.dcm", sitk.GetArrayFromImage(image), source, turned)
    np.testing.assert_array_equal(voxels_by_source(path, source), CLASSES)


@pytest.mark.parametrize("repeated", [False, True])
def test_frames_of_one_file_in_any_order(tmp_path: Path, repeated: bool) -> None:
    order = (3, 1, 0, 2, 5, 4)
    file = multiframe(tmp_path / "enhanced" / "mr.dcm", IMAGE, order, repeated=repeated)
    path = written(tmp_path / "seg.dcm", CLASSES, [file])
    uid = pydicom.dcmread(file).SOPInstanceUID
    pixels = highdicom.seg.segread(path).get_pixels_by_source_frame(
        uid, range(1, 7), combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels, CLASSES[list(order)])


@pytest.mark.parametrize("classes", [CLASSES, np.zeros_like(CLASSES)], ids=["marked", "empty"])
def test_frames_of_one_of_two_echoes(tmp_path: Path, classes: np.ndarray) -> None:
    """The second echo of each slice is the volume: frames 1, 3, 5 and so on, from 0."""
    file = multiframe(tmp_path / "echoes.dcm", IMAGE, (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5))
    second = (11, 9, 7, 5, 3, 1)
    geometry = read_source_series([file], second).geometry
    check_source(geometry, [file], second)
    path = written(tmp_path / "seg.dcm", classes, [file], geometry, source_frames=second)
    pixels = highdicom.seg.segread(path).get_pixels_by_source_frame(
        pydicom.dcmread(file).SOPInstanceUID, range(1, 13), combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels[1::2], classes)
    assert not pixels[0::2].any()


def test_what_the_object_says(source: list[Path], tmp_path: Path) -> None:
    dataset = pydicom.dcmread(written(tmp_path / "seg.dcm", CLASSES, source, guesses=("ET",)))
    header = pydicom.dcmread(source[0])
    for keyword, value in PERSON.items():
        assert dataset[keyword].value == value
    assert (dataset.Modality, dataset.SegmentationType, dataset.SeriesNumber) == ("SEG", "BINARY", 1005)
    assert dataset.SeriesInstanceUID != header.SeriesInstanceUID
    assert dataset.FrameOfReferenceUID == header.FrameOfReferenceUID
    (reference,) = dataset.ReferencedSeriesSequence
    assert reference.SeriesInstanceUID == header.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in reference.ReferencedInstanceSequence} == {
        pydicom.dcmread(file).SOPInstanceUID for file in source
    }
    assert (dataset.Manufacturer, dataset.ManufacturerModelName) == ("a2fseg", "a2fseg")
    assert list(dataset.SoftwareVersions) == ["a2fseg 1.2.3", "weights big"]
    assert dataset.DeviceSerialNumber == "ab" * 32
    assert dataset.SeriesDescription == "a2fseg brain tumour from t1c+flair, for research"
    assert dataset.ContentDescription == "Brain tumour, by a program from t1c+flair. For research"
    assert dataset.ContentQualification == "RESEARCH"
    described = dataset.SegmentSequence
    assert [(s.SegmentNumber, s.SegmentLabel) for s in described] == [
        (1, "NCR necrotic and non-enhancing core"),
        (2, "ED oedema"),
        (3, "ET enhancing"),
    ]
    kinds = [s.SegmentedPropertyTypeCodeSequence[0] for s in described]
    known = [codes.cid7168.Necrosis, codes.cid7168.Edema, codes.cid7168.EnhancingLesion]
    assert [(k.CodeValue, k.CodingSchemeDesignator, k.CodeMeaning) for k in kinds] == [c[:3] for c in known]
    assert [s.get("SegmentDescription") for s in described] == [
        None, None, "A guess: the sequences used cannot show it.",
    ]  # fmt: skip
    for segment in described:
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
        assert segment.AnatomicRegionSequence[0].CodeMeaning == "Brain"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("a2fseg", "1.2.3")
        assert algorithm.AlgorithmParameters == f"weights=big,sha256={'ab' * 32},modalities=t1c+flair"
    assert len({segment.TrackingUID for segment in described}) == 3


def test_colours_are_those_of_the_preview(source: list[Path], tmp_path: Path) -> None:
    described = pydicom.dcmread(written(tmp_path / "seg.dcm", CLASSES, source)).SegmentSequence
    for segment, expected in zip(described, SEGMENTS, strict=True):
        colour = highdicom.color.CIELabColor.from_dicom_value(list(segment.RecommendedDisplayCIELabValue))
        np.testing.assert_allclose(colour.to_rgb(clip=True), expected.colour, atol=1)


def test_a_class_without_a_voxel_is_described(source: list[Path], tmp_path: Path) -> None:
    classes = np.where(CLASSES == 3, 2, CLASSES).astype(np.uint8)
    path = written(tmp_path / "seg.dcm", classes, source)
    assert highdicom.seg.segread(path).segment_numbers == [1, 2, 3]
    np.testing.assert_array_equal(voxels_by_source(path, source), classes)


def test_nothing_marked_is_said_and_all_frames_are_there(source: list[Path], tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", np.zeros(SIZE, np.uint8), source)
    dataset = pydicom.dcmread(path)
    assert dataset.ContentDescription == "No tumour marked, by a program from t1c+flair. For research"
    assert dataset.NumberOfFrames == 3 * 6
    assert not dataset.pixel_array.any()


def test_classes_of_another_task_are_tissue(source: list[Path], tmp_path: Path) -> None:
    other = (Segment(7, "Läsion|1", "Läsion|1 \\ " + "x" * 80, (10, 20, 30)),)
    path = written(tmp_path / "seg.dcm", (CLASSES > 0).astype(np.uint8), source, segments=other)
    (segment,) = pydicom.dcmread(path).SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    assert "AnatomicRegionSequence" not in segment
    assert segment.SegmentLabel == ("L?sion 1   " + "x" * 80)[:64]
    assert plain_text("a^b~c\n") == "a b c"


BROKEN = {
    "a name in two alphabets": {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Müller^Jörg=大久保^一郎"},
    "an accession number that is too long": {"AccessionNumber": "A" * 30},
    "no date": {"StudyDate": None, "PatientBirthDate": None, "StudyTime": None},
    "dates that are none": {"StudyDate": "spring", "PatientBirthDate": "000000", "StudyTime": "ten"},
    "anonymised": dict.fromkeys(PERSON.keys() - {"StudyInstanceUID"}),
    "a sex of its own": {"PatientSex": "W"},
    "a gap for a spacing": {"SpacingBetweenSlices": 0.3},
    "no thickness": {"SliceThickness": None},
    "no number": {"SeriesNumber": None},
    "a number below zero": {"SeriesNumber": -3},
}


@pytest.mark.filterwarnings("ignore:The value length")  # of pydicom, which reads it back
@pytest.mark.parametrize("tags", BROKEN.values(), ids=BROKEN)
def test_headers_that_are_not_as_they_should_be(tmp_path: Path, tags: dict[str, object]) -> None:
    files = series(tmp_path / "s", IMAGE, **tags)
    path = written(tmp_path / "seg.dcm", CLASSES, files)
    np.testing.assert_array_equal(voxels_by_source(path, files), CLASSES)
    dataset = pydicom.dcmread(path)
    for keyword in ("SpecificCharacterSet", "PatientName", "AccessionNumber"):
        if keyword in tags:
            assert dataset.get(keyword) in (tags[keyword], "" if tags[keyword] is None else tags[keyword])
    assert dataset.SeriesNumber == (1000 if "SeriesNumber" in tags else 1005)
    assert dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 3
    assert dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices == 3


def test_an_orientation_that_differs_in_a_late_digit(source: list[Path], tmp_path: Path) -> None:
    header = pydicom.dcmread(source[2])
    header.ImageOrientationPatient = [1, 0, 0, 0, 0.984807753, 0.173648178]
    header.save_as(source[2])
    np.testing.assert_array_equal(voxels_by_source(written(tmp_path / "seg.dcm", CLASSES, source), source), CLASSES)


def _other_grid(source: list[Path], shift_mm: float) -> Geometry:
    grid = read_source_series(source).geometry
    return Geometry(grid.size, grid.spacing_mm, (grid.origin_mm[0] + shift_mm, *grid.origin_mm[1:]), grid.direction)


def test_another_grid_is_refused(source: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t1c: .* grid of this series \(corners up to 0.02 mm away; expected 0.01"):
        written(tmp_path / "seg.dcm", CLASSES, source, _other_grid(source, 0.02))
    written(tmp_path / "seg.dcm", CLASSES, source, _other_grid(source, 0.005))
    with pytest.raises(InputError, match=r"corners up to 0.02 mm away"):
        check_source(_other_grid(source, 0.02), source)
    with pytest.raises(InputError, match=r"\(9 x 7 x 6; expected 9 x 7 x 5\)"):
        written(tmp_path / "fewer.dcm", CLASSES, source[:-1], read_source_series(source).geometry)
    assert not (tmp_path / "fewer.dcm").exists()
    with pytest.raises(ValueError, match="differ in size"):
        written(tmp_path / "seg.dcm", CLASSES[1:], source)


def test_what_is_no_series_is_refused(source: list[Path], tmp_path: Path) -> None:
    def refused(files: list[Path], words: str) -> None:
        with pytest.raises(InputError, match=words):
            read_source_series(files)

    others = series(tmp_path / "other", IMAGE)
    refused([*source, *others], "files of 2 series")
    copied = shutil.copy(source[0], tmp_path / "copy.dcm")
    refused([*source, Path(copied)], r"no volume \(two at one place\)")
    refused([], "No file of the series")
    refused([tmp_path / "absent.dcm"], "no such file")
    (tmp_path / "text.dcm").write_text("not DICOM" * 50)
    refused([tmp_path / "text.dcm"], "no DICOM file")
    refused(series(tmp_path / "nowhere", IMAGE, ImagePositionPatient=None), "does not say where it lies")
    refused(series(tmp_path / "unframed", IMAGE, FrameOfReferenceUID=None), "no frame of reference")
    uid = pydicom.dcmread(source[0]).SeriesInstanceUID
    turned = series(tmp_path / "turned", IMAGE[:1], orientation=(0, 1, 0, 0, 0, -1), SeriesInstanceUID=uid)
    refused([*source, *turned], "different directions")
    multi = [multiframe(tmp_path / name, IMAGE, (0, 1, 2, 3, 4, 5)) for name in ("a.dcm", "b.dcm")]
    header = pydicom.dcmread(multi[0])
    header.SeriesInstanceUID = pydicom.dcmread(multi[1]).SeriesInstanceUID
    header.save_as(multi[0])
    refused(multi, "2 multi-frame files")
    refused([multiframe(tmp_path / "echoes.dcm", IMAGE, (0, 1, 2, 2, 4, 5))], "two at one place")


def test_damaged_headers_are_refused_in_words_or_do_no_harm(source: list[Path], tmp_path: Path) -> None:
    geometry = read_source_series(source).geometry
    whole = source[2].read_bytes()
    random = np.random.default_rng(7)
    refused = 0
    for _ in range(40):
        damaged = np.frombuffer(whole, np.uint8).copy()
        places = random.integers(132, len(whole), 4)
        damaged[places] = random.choice(np.array([0, 45, 57, 255], np.uint8), 4)
        source[2].write_bytes(damaged.tobytes()[: len(whole) if random.random() < 0.8 else places[0]])
        try:
            written(tmp_path / "seg.dcm", CLASSES, source, geometry)
        except InputError as error:
            refused += 1
            assert str(source[2].parent) in str(error)  # noqa: PT017
            assert "DOE" not in str(error)  # noqa: PT017
    assert 10 < refused < 40


def test_one_slice(tmp_path: Path) -> None:
    files = series(tmp_path / "s", IMAGE[:1])
    path = written(tmp_path / "seg.dcm", CLASSES[2:3], files)
    np.testing.assert_array_equal(voxels_by_source(path, files), CLASSES[2:3])


def test_a_full_disk_leaves_what_was_there(source: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "seg.dcm").write_bytes(b"earlier")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ResourceError, match="the disk is full"):
        written(tmp_path / "out" / "seg.dcm", CLASSES, source)
    assert os.listdir(tmp_path / "out") == ["seg.dcm"]
    assert (tmp_path / "out" / "seg.dcm").read_bytes() == b"earlier"


def test_without_highdicom_it_is_said_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    segmentation.check_installed()
    monkeypatch.setattr(segmentation, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"pip install 'a2fseg\[dicom\]'"):
        segmentation.check_installed()


def test_the_module_is_imported_without_its_libraries() -> None:
    code = "import sys, a2fseg_cli.dicom.segmentation; print({'pydicom', 'highdicom', 'SimpleITK'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "set()\n"


@pytest.fixture(params=["single", "multi-frame", "one class empty", "all empty"])
def checked(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A segmentation and its classes, of each kind that other programs have to read."""
    if request.param == "multi-frame":
        files = [multiframe(tmp_path / "mr.dcm", IMAGE, (3, 1, 0, 2, 5, 4))]
    else:
        files = series(tmp_path / "s", IMAGE)
    classes = {"one class empty": np.minimum(CLASSES, 2), "all empty": np.zeros_like(CLASSES)}.get(
        request.param, CLASSES
    )
    return written(tmp_path / "seg.dcm", classes, files), classes


def _program(name: str, source: str) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} ({source}) is not installed")
    return program


def test_dciodvfy_finds_no_error(checked: tuple[Path, np.ndarray]) -> None:
    program = _program("dciodvfy", "Debian's dicom3tools")
    said = subprocess.run([program, checked[0]], capture_output=True, text=True)
    lines = (said.stdout + said.stderr).splitlines()
    assert "Segmentation" in lines  # that it knew what it was given
    assert not [line for line in lines if line.startswith(("Error", "Warning"))]


def test_dcmqi_reads_the_same_voxels(checked: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    program = _program("segimage2itkimage", "the package dcmqi")
    path, classes = checked
    (folder := tmp_path / "dcmqi").mkdir()
    command = [program, "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "W:" not in said.stderr
    grid = sitk.ReadImage(str(folder / "1.nrrd"))
    marked = np.flatnonzero(classes.any(axis=(1, 2)))
    first, last = (marked[0], marked[-1]) if marked.size else (0, 5)
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    np.testing.assert_allclose(grid.GetOrigin(), (-10, 20, 30) + 3 * first * normal, atol=1e-4)
    np.testing.assert_allclose(grid.GetSpacing(), (0.75, 0.5, 3), atol=1e-4)
    for number in (1, 2, 3):
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{number}.nrrd")))
        np.testing.assert_array_equal(mask > 0, classes[first : last + 1] == number)


@pytest.fixture
def _own_locale() -> Iterator[None]:
    """ITK sets the process's locale to C when it writes a direction as DICOM: texts would then be read as ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.mark.slow
@pytest.mark.usefixtures("_own_locale")
def test_a_real_patient_by_gdcm(cases_dir: Path, tmp_path: Path) -> None:
    """A BraTS image as GDCM writes a series, with the expert's mask, comes back whole from the object."""
    patient = cases_dir / "BraTS-GLI-00000-000"
    truth = sitk.ReadImage(str(next(patient.glob("*seg.nii.gz"))))
    image = sitk.Cast(sitk.ReadImage(str(next(patient.glob("*t1c.nii.gz")))), sitk.sitkUInt16)
    right, down = image.GetDirection()[0::3], image.GetDirection()[1::3]
    tags = {"0008|0060": "MR", "0020|000d": "1.2.3.4", "0020|000e": "1.2.3.5", "0020|0052": "1.2.3.6"}
    tags |= {"0010|0010": "DOE^JANE", "0010|0020": "4711", "0020|0037": "\\".join(map(str, (*right, *down)))}
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    (folder := tmp_path / "series").mkdir()
    for index in range(image.GetDepth()):
        plane = image[:, :, index]
        place = image.TransformIndexToPhysicalPoint((0, 0, index))
        of_slice = {"0020|0032": "\\".join(map(str, place)), "0008|0018": f"1.2.3.7.{index + 1}"}
        for tag, value in (tags | of_slice).items():
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{index:03}.dcm"))
        writer.Execute(plane)
    files = sorted(folder.iterdir())
    classes = sitk.GetArrayFromImage(truth).astype(np.uint8)
    grid = Geometry(classes.shape, truth.GetSpacing()[::-1], truth.GetOrigin(), truth.GetDirection())
    path = written(tmp_path / "seg.dcm", classes, files, grid)
    uids = [f"1.2.3.7.{index + 1}" for index in range(image.GetDepth())]
    read = highdicom.seg.segread(path).get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(read, classes)
    if program := shutil.which("dciodvfy"):
        said = subprocess.run([program, path], capture_output=True, text=True)
        assert "Error" not in said.stderr
