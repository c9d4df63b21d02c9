"""Writing: the input's grid to the bit, nothing private, whole or not at all."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fseg_cli.errors import InputError, ResourceError, UsageError
from a2fseg_cli.files import atomic_write_bytes, atomic_write_text, check_place
from a2fseg_cli.imaging.geometry import Geometry, same_grid
from a2fseg_cli.imaging.reading import peek_image, read_image, read_label_map
from a2fseg_cli.imaging.writing import check_output_name, write_label_map, write_map

SIZE = (4, 5, 6)
LABELS = (np.arange(120).reshape(SIZE) % 4).astype(np.uint8)
IDENTITY = Geometry(SIZE, (1.0, 1.0, 1.0))
FORMATS = [".nii", ".nii.gz", ".nrrd", ".mha", ".NII.GZ", ".mgz", ".mgh"]


def _reference(path: Path, affine: np.ndarray, qform: np.ndarray, codes: tuple[int, int], order: str = "<") -> Path:
    image = nibabel.Nifti1Image(LABELS.T.astype(np.int16), None, nibabel.Nifti1Header(endianness=order))
    image.set_sform(affine, code=codes[0])
    image.set_qform(qform, code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(path)
    return path


def _rotated(quaternion: list[int], spacing: list[float], origin: list[float], flip: bool) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = nibabel.quaternions.quat2mat(quaternion) * spacing * [1, 1, -1 if flip else 1]
    affine[:3, 3] = origin
    return affine


quaternions = st.lists(st.integers(-3, 3), min_size=4, max_size=4).filter(any)
affines = st.builds(
    _rotated,
    quaternions,
    st.lists(st.sampled_from([0.5, 0.9375, 1.0, 1.2, 3.0]), min_size=3, max_size=3),
    st.lists(st.floats(-200, 200), min_size=3, max_size=3),
    st.booleans(),
)


@settings(max_examples=60)
@given(affines, affines, st.sampled_from([(1, 1), (4, 1), (0, 1), (2, 0), (0, 0)]), st.sampled_from("<>"))
def test_sform_qform_and_codes_are_the_references(tmp_path_factory, affine, qform, codes, order) -> None:
    folder = tmp_path_factory.getbasetemp()
    reference = _reference(folder / "reference.nii.gz", affine, qform, codes, order)
    write_label_map(LABELS, reference, peek_image(reference)[0], folder / "out.nii.gz")
    expected, written = nibabel.load(reference).header, nibabel.load(folder / "out.nii.gz").header
    for field in (
        "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
        "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units",
    ):  # fmt: skip
        np.testing.assert_array_equal(written[field], expected[field], err_msg=field)
    np.testing.assert_array_equal(written.get_sform(), expected.get_sform())
    np.testing.assert_array_equal(written.get_qform(), expected.get_qform())
    np.testing.assert_array_equal(np.asarray(nibabel.load(folder / "out.nii.gz").dataobj).T, LABELS)
    assert peek_image(folder / "out.nii.gz")[0] == peek_image(reference)[0]


def test_nothing_private_goes_along(tmp_path) -> None:
    image = nibabel.Nifti1Image(LABELS.T.astype(np.int16), np.eye(4))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = b"DOE^JANE"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE, born 1950"))
    reference = tmp_path / "DOE_JANE.nii.gz"
    image.to_filename(reference)
    assert b"DOE" in gzip.decompress(reference.read_bytes())
    write_label_map(LABELS, reference, peek_image(reference)[0], tmp_path / "JANE.nii.gz")
    data = (tmp_path / "JANE.nii.gz").read_bytes()
    assert b"DOE" not in gzip.decompress(data)
    assert b"JANE" not in data  # gzip can store the file's name
    assert len(gzip.decompress(data)) == 352 + LABELS.size


def test_nifti2_reference(tmp_path) -> None:
    affine = _rotated([2, 1, 0, 1], [0.5, 1.2, 3], [10.25, -20, 30], True)
    nibabel.Nifti2Image(LABELS.T.astype(np.int16), affine).to_filename(tmp_path / "a.nii")
    geometry, _ = peek_image(tmp_path / "a.nii")
    write_label_map(LABELS, tmp_path / "a.nii", geometry, tmp_path / "b.nii")
    assert nibabel.load(tmp_path / "b.nii").header["magic"] == b"n+1"
    np.testing.assert_allclose(nibabel.load(tmp_path / "b.nii").affine, affine, rtol=1e-6, atol=1e-6)


def test_codes_that_only_nifti2_can_hold(tmp_path) -> None:
    image = nibabel.Nifti2Image(LABELS.T.astype(np.int16), np.diag([1.0, 1.0, 1.0, 1.0]))
    image.header["sform_code"] = 40_000
    image.header["qform_code"] = 3
    image.to_filename(tmp_path / "a.nii")
    geometry, _ = peek_image(tmp_path / "a.nii")
    write_label_map(LABELS, tmp_path / "a.nii", geometry, tmp_path / "b.nii")
    header = nibabel.load(tmp_path / "b.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 3)
    assert same_grid(peek_image(tmp_path / "b.nii")[0], geometry)


def test_a_reference_that_lies_elsewhere_by_now_does_not_count(tmp_path) -> None:
    reference = _reference(tmp_path / "a.nii", np.diag([3.0, 3, 3, 1]), np.diag([3.0, 3, 3, 1]), (1, 1))
    write_label_map(LABELS, reference, IDENTITY, tmp_path / "b.nii")
    assert same_grid(peek_image(tmp_path / "b.nii")[0], IDENTITY)
    reference.unlink()
    write_label_map(LABELS, reference, IDENTITY, tmp_path / "c.nii")
    assert (tmp_path / "b.nii").read_bytes() == (tmp_path / "c.nii").read_bytes()


@settings(max_examples=40)
@given(affine=affines, suffix=st.sampled_from(FORMATS[:4]), real=st.booleans())
def test_every_format_lies_where_simpleitk_finds_it(tmp_path_factory, affine, suffix, real) -> None:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / spacing
    x, y, z = spacing.tolist()
    geometry = Geometry(SIZE, (z, y, x), tuple(affine[:3, 3].tolist()), tuple(direction.ravel().tolist()))
    path = tmp_path_factory.getbasetemp() / suffix[1:] / f"out{suffix}"  # ITK takes a.nii's voxels for a.nii.gz's
    values = (LABELS / np.float32(3)).astype(np.float32) if real else LABELS
    (write_map if real else write_label_map)(values, Path("reference.mha"), geometry, path)
    image = sitk.ReadImage(str(path))
    assert image.GetPixelID() == (sitk.sitkFloat32 if real else sitk.sitkUInt8)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), values)
    np.testing.assert_allclose(image.GetSpacing(), spacing, rtol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), affine[:3, 3], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(image.GetDirection(), geometry.direction, atol=1e-6)
    if suffix.startswith(".nii"):  # sform and qform say the same
        header = nibabel.load(path).header
        np.testing.assert_allclose(header.get_sform(), header.get_qform(), atol=1e-4)
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert same_grid(peek_image(path)[0], geometry)
    assert not any("disagree" in warning for warning in peek_image(path)[1])


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_is_read_back(tmp_path, suffix) -> None:
    path = tmp_path / "new" / "folder" / f"a{suffix}"
    write_label_map(LABELS, path, IDENTITY, path)
    labels, geometry = read_label_map(path)
    np.testing.assert_array_equal(labels, LABELS)
    assert geometry == IDENTITY
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_content_is_the_same_bytes(tmp_path, suffix) -> None:
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    write_label_map(LABELS, first, IDENTITY, first)
    os.utime(first, (0, 0))
    write_label_map(np.asfortranarray(LABELS), first.with_suffix(".mha"), IDENTITY, second)
    assert first.read_bytes() == second.read_bytes()
    if suffix == ".nii.gz":
        assert first.read_bytes()[3:8] == b"\0" * 5  # no name, no time


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nibabel leaves MGH files open
@settings(max_examples=20)
@given(affine=affines, real=st.booleans())
def test_mgz_lies_where_nibabel_finds_it(tmp_path_factory, affine, real) -> None:
    folder = tmp_path_factory.getbasetemp()
    nibabel.Nifti1Image(LABELS.T, affine).to_filename(folder / "grid.nii")
    geometry = peek_image(folder / "grid.nii")[0]
    (write_map if real else write_label_map)(LABELS, folder / "grid.nii", geometry, folder / "a.mgz")
    image = nibabel.load(folder / "a.mgz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, LABELS)
    assert image.get_data_dtype() == (">f4" if real else "u1")
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)


def test_names_that_cannot_be_written(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"seg.png: .*\.nii\.gz, \.nii, \.nrrd, \.mha"):
        write_label_map(LABELS, tmp_path / "a.nii", IDENTITY, tmp_path / "seg.png")
    with pytest.raises(UsageError, match="a folder"):
        check_output_name(tmp_path)
    assert check_output_name(tmp_path / "A.NII.GZ") == ".nii.gz"
    assert check_output_name(tmp_path / "a.b.nii") == ".nii"
    for name in ("a.hdr", "a.mhd", "a.nhdr"):  # two files
        with pytest.raises(UsageError, match="cannot write this type"):
            check_output_name(tmp_path / name)


def test_an_axis_too_long_for_nifti1(tmp_path) -> None:
    geometry = Geometry((2, 2, 40000), (1.0, 1.0, 1.0))
    with pytest.raises(UsageError, match=r"Write \.nrrd"):
        write_label_map(np.zeros(geometry.size, np.uint8), tmp_path, geometry, tmp_path / "a.nii")
    write_label_map(np.zeros(geometry.size, np.uint8), tmp_path, geometry, tmp_path / "a.nrrd")
    assert peek_image(tmp_path / "a.nrrd")[0] == geometry


def test_array_and_geometry_of_different_size_are_a_bug(tmp_path) -> None:
    with pytest.raises(ValueError, match="differ in size"):
        write_label_map(LABELS[1:], tmp_path / "a.nii", IDENTITY, tmp_path / "b.nii")


@pytest.mark.parametrize("earlier", [None, b"earlier"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, earlier, code) -> None:
    path = tmp_path / "seg.nii.gz"
    if earlier:
        path.write_bytes(earlier)

    def fail(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    reason = os.strerror(code) if code == errno.EIO else "the disk is full"
    with pytest.raises(ResourceError, match=rf"seg\.nii\.gz: cannot be written \({reason}\)"):
        write_label_map(LABELS, path, IDENTITY, path)
    assert os.listdir(tmp_path) == ([path.name] if earlier else [])
    assert earlier is None or path.read_bytes() == earlier


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which only Linux has")
def test_a_disk_that_is_really_full(tmp_path, monkeypatch) -> None:
    opened = Path.open

    def open_full(path: Path, mode: str = "r"):
        return opened(Path("/dev/full"), "wb") if path.suffix == ".part" else opened(path, mode)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(ResourceError, match="the disk is full"):
        atomic_write_bytes(tmp_path / "a", b"x" * 100_000)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch) -> None:
    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_bytes(tmp_path / "a", b"x")
    assert os.listdir(tmp_path) == []


def test_a_file_where_a_folder_should_be(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"):
        atomic_write_text(tmp_path / "file" / "a.txt", "x")


def test_text_replaces_what_was_there(tmp_path) -> None:
    path = tmp_path / "new" / "a.csv"
    atomic_write_text(path, "first")
    atomic_write_text(path, "µL\n")
    assert path.read_bytes() == "µL\n".encode()


def test_real_patients_come_back_on_their_own_grid(cases_dir, tmp_path) -> None:
    for name in ("BraTS-GLI-00000-000", "Brats18_2013_20_1"):
        truth = next((cases_dir / name).glob("*seg.nii.gz"))
        image = next(path for path in sorted((cases_dir / name).glob("*.nii.gz")) if path != truth)
        labels, _ = read_label_map(truth)
        out = tmp_path / f"{name}.nii.gz"
        write_label_map(labels.astype(np.uint8), image, read_image(image).geometry, out)
        written, expected = nibabel.load(out), nibabel.load(image)
        np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(nibabel.load(truth).dataobj))
        for form in ("get_sform", "get_qform"):
            (affine, code), (reference, reference_code) = (
                getattr(header, form)(coded=True) for header in (written.header, expected.header)
            )
            np.testing.assert_array_equal(affine, reference)
            assert code == reference_code


@settings(max_examples=30)
@given(st.binary(max_size=400))
def test_any_bytes_as_reference_leave_the_geometry_in_charge(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "bytes.nii").write_bytes(data)
    with pytest.raises(InputError):
        peek_image(folder / "bytes.nii")
    write_label_map(LABELS, folder / "bytes.nii", IDENTITY, folder / "written.nii")
    assert peek_image(folder / "written.nii")[0] == IDENTITY


def test_a_place_is_judged_before_anything_is_made(tmp_path: Path) -> None:
    check_place(tmp_path / "new" / "folder" / "a.json")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ResourceError, match=r"a.json: cannot be written \(.*file: it is not a folder\)"):
        check_place(tmp_path / "file" / "new" / "a.json")
    with pytest.raises(ResourceError, match="cannot be written"):
        check_place(tmp_path / ("a" * 300))
    with pytest.raises(UsageError, match="a folder"):
        check_place(tmp_path)
