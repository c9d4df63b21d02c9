"""Reading: values and grids against nibabel and SimpleITK, and one line for every kind of bad input."""

from __future__ import annotations

import gzip
import math
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.imaging.formats import limits
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.one_grid import check_distinct, check_same_grid, resample_to
from a2fseg_cli.imaging.reading import peek_channels, peek_image, read_channels, read_image, read_label_map
from a2fseg_cli.imaging.writing import write_map

SIZE = (6, 7, 8)  # (D, H, W)


def _volume(dtype: str = "int16") -> np.ndarray:
    """A block of tissue in a background of zeros, (D, H, W)."""
    volume = np.zeros(SIZE, dtype)
    volume[1:5, 1:6, 1:7] = np.arange(4 * 5 * 6).reshape(4, 5, 6) % 100 + 1
    return volume


def _save(
    path: Path,
    volume: np.ndarray,
    affine: np.ndarray | None = None,
    *,
    sform: int = 1,
    qform: int = 1,
    qform_affine: np.ndarray | None = None,
    order: str = "<",
    slope: tuple[float, float] | None = None,
) -> Path:
    """Write a NIfTI-1 file with nibabel from an array (D, H, W)."""
    affine = np.diag([-1.0, -1, 1, 1]) if affine is None else affine
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(volume.dtype)
    image = nibabel.Nifti1Image(volume.T, affine, header)
    image.set_sform(affine, code=sform)
    image.set_qform(affine if qform_affine is None else qform_affine, code=qform)
    if slope:
        image.header.set_slope_inter(*slope)
    image.to_filename(path)
    return path


def _patch(path: Path, offset: int, data: bytes) -> Path:
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(data)] = data
    path.write_bytes(raw)
    return path


def _affine(quaternion: list[float], spacing: list[float], origin: list[float], flip: bool) -> np.ndarray:
    rotation = nibabel.quaternions.quat2mat(quaternion)
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing * (-1 if flip else 1)
    affine[:3, 3] = origin
    return affine


affines = st.builds(
    _affine,
    st.lists(st.integers(-3, 3), min_size=4, max_size=4).filter(any),
    st.lists(st.sampled_from([0.5, 0.9375, 1.0, 1.2, 3.0]), min_size=3, max_size=3),
    st.lists(st.floats(-200, 200), min_size=3, max_size=3),
    st.booleans(),
)


@settings(max_examples=60)
@given(
    affine=affines,
    dtype=st.sampled_from(["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8"]),
    order=st.sampled_from("<>"),
    codes=st.sampled_from([(1, 1), (1, 0), (0, 1), (4, 2), (2, 0)]),
    slope=st.sampled_from([None, (1.0, 0.0), (2.0, 0.0), (0.5, -3.0)]),
    suffix=st.sampled_from([".nii", ".nii.gz", ".NII.GZ"]),
)
def test_nifti_is_read_as_nibabel_reads_it(tmp_path_factory, affine, dtype, order, codes, slope, suffix) -> None:
    path = tmp_path_factory.getbasetemp() / f"nibabel{suffix.lower()}"
    _save(path, _volume(dtype), affine, sform=codes[0], qform=codes[1], order=order, slope=slope)
    path = path.rename(path.with_name(f"read{suffix}"))
    _lies_where_nibabel_says(path)
    image = read_image(path)
    assert image.array.dtype == np.float32
    assert image.array.flags.c_contiguous
    assert not any("disagree" in warning or "sheared" in warning for warning in image.warnings)


@settings(max_examples=25)
@given(affine=affines, suffix=st.sampled_from([".nii.gz", ".nrrd", ".mha"]), compress=st.booleans())
def test_every_format_is_read_as_simpleitk_reads_it(tmp_path_factory, affine, suffix, compress) -> None:
    path = tmp_path_factory.getbasetemp() / f"itk{suffix}"
    image = sitk.GetImageFromArray(_volume())
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=compress)
    expected = sitk.ReadImage(str(path))
    path = path.rename(path.with_suffix(path.suffix.upper()))
    read = read_image(path)
    np.testing.assert_array_equal(read.array, sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(read.geometry.spacing_mm[::-1], expected.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(read.geometry.origin_mm, expected.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(read.geometry.direction, expected.GetDirection(), atol=1e-5)
    assert peek_image(path)[0] == read.geometry


@pytest.mark.parametrize("kind", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkUInt32, sitk.sitkInt64, sitk.sitkFloat64])
def test_voxel_types_of_metaimage(tmp_path, kind) -> None:
    image = sitk.Cast(sitk.GetImageFromArray(_volume()), kind)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.mha").array, _volume())


def test_nifti2(tmp_path) -> None:
    affine = np.diag([2.0, 1, 1, 1])
    nibabel.Nifti2Image(_volume().T, affine).to_filename(tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.array, _volume())
    assert image.geometry.spacing_mm == (1, 1, 2)
    assert image.geometry.orientation == "RAS"


def test_plain_and_gzip_content_under_the_other_name(tmp_path) -> None:
    _save(tmp_path / "a.nii.gz", _volume())
    (tmp_path / "b.nii").write_bytes((tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "c.nii.gz").write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    for name in ("b.nii", "c.nii.gz"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array, _volume())


def test_nii_and_nii_gz_of_one_name_are_not_mixed_up(tmp_path) -> None:
    # The NIfTI library under ITK reads the header of a.nii.gz and the voxels of a.nii.
    _save(tmp_path / "a.nii.gz", _volume())
    _save(tmp_path / "a.nii", _volume() * 2)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").array, _volume())
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii").array, _volume() * 2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nibabel leaves MGH files open
@settings(max_examples=25)
@given(affine=affines, dtype=st.sampled_from(["u1", "i2", "i4", "f4"]), suffix=st.sampled_from([".mgz", ".mgh"]))
def test_mgh_is_read_as_nibabel_reads_it(tmp_path_factory, affine, dtype, suffix) -> None:
    path = tmp_path_factory.getbasetemp() / f"freesurfer{suffix}"
    nibabel.freesurfer.MGHImage(_volume(dtype).T, affine).to_filename(path)
    _lies_where_nibabel_says(path)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
def test_a_pair_is_read_by_either_name(tmp_path, kind) -> None:
    kind(_volume().T, np.diag([2.0, 1, 3, 1])).to_filename(tmp_path / "a.hdr")
    _lies_where_nibabel_says(tmp_path / "a.hdr")
    np.testing.assert_array_equal(read_image(tmp_path / "a.img").array, _volume())
    (tmp_path / "a.img").write_bytes((tmp_path / "a.img").read_bytes()[:-1])
    _refused(tmp_path / "a.img", "bytes promised, the file has")


def _lies_where_nibabel_says(path: Path) -> None:
    """The voxels and the affine from index (x, y, z) to RAS, rebuilt from our geometry."""
    image, expected = read_image(path), nibabel.load(path)
    np.testing.assert_allclose(image.array, expected.get_fdata().T, rtol=1e-6)
    geometry, rebuilt = image.geometry, np.eye(4)
    rebuilt[:3, :3] = np.diag([-1, -1, 1]) @ geometry.direction_matrix * geometry.spacing_mm[::-1]
    rebuilt[:3, 3] = np.multiply(geometry.origin_mm, [-1, -1, 1])
    np.testing.assert_allclose(rebuilt, expected.affine, atol=2e-5)
    assert peek_image(path)[0] == geometry


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
@pytest.mark.parametrize("compress", [False, True])
def test_voxels_beside_a_text_header(tmp_path, suffix, compress) -> None:
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(_volume()), str(path), useCompression=compress)
    np.testing.assert_array_equal(read_image(path).array, _volume())
    voxels = next(other for other in tmp_path.iterdir() if other != path)
    (tmp_path / "elsewhere").mkdir()
    voxels.rename(tmp_path / "elsewhere" / voxels.name)
    path.write_text(path.read_text().replace(voxels.name, f"elsewhere/{voxels.name}"))
    sitk.ReadImage(str(path))
    _refused(path, "another file")


def test_bytes_behind_a_gzip_stream_and_streams_in_a_row(tmp_path) -> None:
    """As some copiers leave them, and as bgzip packs: ITK and FSL read both."""
    plain = _save(tmp_path / "a.nii", _volume()).read_bytes()
    whole = gzip.compress(plain)
    blocks = b"".join(gzip.compress(plain[start : start + 100]) for start in range(0, len(plain), 100))
    for data in (whole + b"trailing bytes", whole + bytes(512), blocks, blocks + b"\x1f"):
        (tmp_path / "b.nii.gz").write_bytes(data)
        np.testing.assert_array_equal(read_image(tmp_path / "b.nii.gz").array, _volume())


def test_a_file_is_what_it_contains_whatever_its_name(tmp_path) -> None:
    nrrd = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(_volume()), str(nrrd))
    np.testing.assert_array_equal(read_image(nrrd.rename(tmp_path / "b.nii.gz")).array, _volume())


def test_a_fourth_axis_of_zero_is_none(tmp_path) -> None:
    path = _save(tmp_path / "a.nii", _volume())
    _patch(path, 40, np.array([4, *SIZE[::-1], 0, 0, 0, 0], "<i2").tobytes())
    np.testing.assert_array_equal(read_image(path).array, _volume())


def test_reading_in_threads(tmp_path) -> None:
    paths = []
    for number in range(1, 9):
        paths.append(tmp_path / f"{number}{['.nii.gz', '.nrrd', '.mha', '.mgz'][number % 4]}")
        write_map(_volume("float32") * number, paths[-1], _grid(), paths[-1])
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(read_image, paths * 3))
    for number, image in enumerate(images):
        np.testing.assert_array_equal(image.array, _volume("float32") * (number % 8 + 1))


def test_damaged_headers_in_threads(tmp_path) -> None:
    """NRRD's parser, with errors in two threads at once, ends the process."""
    path = _nrrd(tmp_path / "a.nrrd", "space: LPS", "space directions: (1,0,0) (0,1,0) (0,0,1)", "space origin: (5)")

    def refused(_: int) -> bool:
        try:
            peek_image(path)
        except InputError:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(refused, range(2000)))


def test_no_library_is_loaded_before_a_file_is_read() -> None:
    rooms = "a2fseg_cli.imaging.reading, a2fseg_cli.imaging.writing, a2fseg_cli.cases.discovery"
    code = f"import sys, {rooms}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"nibabel", "SimpleITK"} & set(loaded)


def test_trailing_axis_of_one_is_a_volume(tmp_path) -> None:
    nibabel.Nifti1Image(_volume().T[..., None], np.eye(4)).to_filename(tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").array.shape == SIZE


@pytest.mark.parametrize(
    "space",
    [
        "space: RAS\nspace directions: (0,2,0) (1,0,0) (0,0,-3)\nspace origin: (10,20,30)",
        "space: left-anterior-superior\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (10,20,30)",
        "space: scanner-xyz\nspace directions: (0.6,0.8,0) (-0.8,0.6,0) (0,0,3)\nspace origin: (1,2,3)",
        "space: LPS",
        "spacings: 1 2 3",
        "spacings: 1 NaN 3",
        "spacings: 1 2 3\naxis mins: 10 20 30",
        "spacings: 1 2 3\naxis mins: 10 20 30\ncenters: node node node",
        "# a comment: 1\nkey:=value\nspacings: 1 2 3\nkinds: space space space",
    ],
)
def test_nrrd_lies_where_simpleitk_says(tmp_path, space) -> None:
    path = tmp_path / "a.nrrd"
    head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 8 7 6\nendian: little\nencoding: raw\n{space}\n\n"
    path.write_bytes(head.encode() + _volume().tobytes())
    image, expected = read_image(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(image.array, sitk.GetArrayFromImage(expected))
    assert image.geometry.spacing_mm[::-1] == pytest.approx(expected.GetSpacing())
    assert image.geometry.origin_mm == pytest.approx(expected.GetOrigin())
    assert image.geometry.direction == pytest.approx(expected.GetDirection())


def test_units_of_metres(tmp_path) -> None:
    path = _save(tmp_path / "a.nii", _volume(), np.diag([-0.001, -0.001, 0.001, 1]))
    _patch(path, 123, b"\x01")
    np.testing.assert_allclose(read_image(path).geometry.spacing_mm, (1, 1, 1), rtol=1e-6)


def test_sform_wins_and_a_disagreement_is_told_with_both(tmp_path) -> None:
    qform = np.diag([-1.0, -1, 1, 1])
    sform = qform.copy()
    sform[0, 3] = 7
    path = _save(tmp_path / "a.nii", _volume(), sform, qform_affine=qform)
    for warnings, geometry in ((read_image(path).warnings, read_image(path).geometry), peek_image(path)[::-1]):
        assert geometry.origin_mm == (-7, 0, 0)
        assert "sform and qform disagree by up to 7 mm; the sform is used" in warnings[0]
        assert "sform [-1 0 0 7; 0 -1 0 0; 0 0 1 0], qform [-1 0 0 0;" in warnings[0]
    assert read_image(_save(path, _volume(), sform, qform_affine=qform, sform=0)).geometry.origin_mm == (0, 0, 0)


def test_a_difference_below_a_hundredth_of_a_millimetre_is_none(tmp_path) -> None:
    sform = np.diag([-1.0, -1, 1, 1])
    sform[0, 3] = 0.009
    path = _save(tmp_path / "a.nii", _volume(), sform, qform_affine=np.diag([-1.0, -1, 1, 1]))
    assert not any("disagree" in warning for warning in read_image(path).warnings)


def test_without_codes_the_grid_is_simpleitks_and_a_warning_says_so(tmp_path) -> None:
    path = _save(tmp_path / "a.nii", _volume(), np.diag([-2.0, -1, 1, 1]), sform=0, qform=0)
    image, expected = read_image(path), sitk.ReadImage(str(path))
    assert image.geometry.spacing_mm[::-1] == expected.GetSpacing()
    assert image.geometry.direction == expected.GetDirection()
    assert "no orientation in the header" in image.warnings[0]


def test_sheared_sform_gives_the_nearest_right_angles_with_a_warning(tmp_path) -> None:
    sform = np.diag([-1.0, -1, 1, 1])
    sform[0, 1] = 0.1
    image = read_image(_save(tmp_path / "a.nii", _volume(), sform, qform=0))
    matrix = image.geometry.direction_matrix
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)
    # 0.1 of x in y is an angle of 5.7 degrees; the nearest right angle shares it between both axes.
    assert image.geometry.obliqueness_deg == pytest.approx(math.degrees(math.atan(0.1)) / 2, abs=0.01)
    assert "sheared axes" in image.warnings[0]


def test_noise_in_the_sform_leaves_the_voxel_sizes_exact(tmp_path) -> None:
    affine = _affine([5, 1, 2, 1], [0.9375, 0.9375, 1.2], [0, 0, 0], False)
    image = read_image(_save(tmp_path / "a.nii", _volume(), affine))
    assert image.geometry.spacing_mm == (float(np.float32(1.2)), 0.9375, 0.9375)


# Bad input: what, and what the message has to say.


def _refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1
    assert "itk" not in message.lower()


def test_no_permission(tmp_path, monkeypatch) -> None:
    path = _save(tmp_path / "a.nii", _volume())

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    _refused(path, "no permission")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_every_truncation_is_refused(tmp_path, suffix) -> None:
    whole = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(whole), useCompression=True)
    read_image(whole)
    data = whole.read_bytes()
    path = tmp_path / f"b{suffix}"
    for length in (1, 100, 300, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        _refused(path, "truncated|damaged|ends within|no NIfTI|no .mha")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_damaged_byte_in_the_compressed_voxels(tmp_path, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), useCompression=True)
    place = path.stat().st_size * 3 // 4
    _patch(path, place, bytes([path.read_bytes()[place] ^ 1]))
    _refused(path, "damaged")


def test_two_dimensional(tmp_path) -> None:
    nibabel.Nifti1Image(np.ones((5, 6), np.int16), np.eye(4)).to_filename(tmp_path / "a.nii")
    _refused(tmp_path / "a.nii", r"2-D, a single slice \(5 x 6 x 1\)")
    nibabel.Nifti1Image(np.ones((5, 6, 1), np.int16), np.eye(4)).to_filename(tmp_path / "b.nii")
    _refused(tmp_path / "b.nii", "2-D")
    for suffix in (".mha", ".nrrd"):
        sitk.WriteImage(sitk.Image(5, 6, sitk.sitkInt16), str(tmp_path / f"a{suffix}"))
        _refused(tmp_path / f"a{suffix}", "2-D")


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_vector(tmp_path, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.Image([5, 6, 7], sitk.sitkVectorFloat32, 3), str(path))
    _refused(path, "vector")


def test_two_file_nifti_and_external_mha(tmp_path) -> None:
    _refused(_patch(_save(tmp_path / "a.nii", _volume()), 344, b"ni1\0"), "two-file NIfTI")
    sitk.WriteImage(sitk.GetImageFromArray(_volume()), str(tmp_path / "a.mhd"))
    (tmp_path / "a.raw").unlink()
    _refused(tmp_path / "a.mhd", "another file")


def test_nonfinite_in_a_hole_of_the_brain_is_inside(tmp_path) -> None:
    volume = _volume("float32")
    volume[3, 3, 2:4] = 0, np.nan
    _refused(_save(tmp_path / "a.nii", volume), "1 voxels inside")


@pytest.mark.parametrize("background", [0, -1])
def test_nonfinite_outside_the_brain_becomes_background(tmp_path, background) -> None:
    clean = np.where(_volume("float32") == 0, np.float32(background), _volume("float32"))
    volume = clean.copy()
    volume[0], volume[1, 0, 0] = np.nan, np.inf
    image = read_image(_save(tmp_path / "a.nii", volume))
    np.testing.assert_array_equal(image.array, clean)
    assert f"57 NaN or infinite voxels outside the brain set to {background}" in image.warnings[-1]


def test_more_voxels_promised_than_the_file_holds(tmp_path) -> None:
    path = _save(tmp_path / "a.nii", _volume())
    _refused(_patch(path, 42, (1000).to_bytes(2, "little") * 2), "bytes promised, the file has")
    _refused(_patch(path, 42, (32767).to_bytes(2, "little") * 3), "more than a head has")
    packed = tmp_path / "a.nii.gz"
    packed.write_bytes(gzip.compress(_patch(path, 42, (1000).to_bytes(2, "little") * 3).read_bytes()))
    tracemalloc.start()
    try:
        _refused(packed, "bytes promised, the file has")  # 2 GB of voxels in 400 bytes
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_more_voxels_promised_in_text_headers(tmp_path, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(_volume()), str(path), useCompression=True)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"8 7 6", b"900 900 900"))
    _refused(path, "bytes promised, the file has")
    path.write_bytes(data.replace(b"8 7 6", b"9999 9999 9999"))
    _refused(path, "more than a head has")


def test_the_largest_volume_is_one_of_1024_cubed(tmp_path) -> None:
    assert limits.check_volume_size(tmp_path, (1024, 1024, 1024)) == (1024, 1024, 1024)
    with pytest.raises(InputError):
        limits.check_volume_size(tmp_path, (1024, 1024, 1025))


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_affine_that_is_none(tmp_path, value) -> None:
    path = _save(tmp_path / "a.nii", _volume(), qform=0)
    _refused(_patch(path, 280, np.full(4, value, "<f4").tobytes()), "the affine is not usable")


# Warnings.


def test_thick_slices_above_two_millimetres(tmp_path) -> None:
    thick = read_image(_save(tmp_path / "a.nii", _volume(), np.diag([1, 1, 2.01, 1.0])))
    assert "thick slices (1 x 1 x 2.01 mm)" in thick.warnings[0]
    fine = _save(tmp_path / "b.nii", _volume(), np.diag([1, 1, 2.0, 1]))
    assert read_image(fine).warnings == peek_image(fine)[1] == ()


# Several volumes in one file.


def test_channels_of_a_file_by_name(tmp_path) -> None:
    volumes = np.stack([_volume(), _volume() * 2, _volume() * 3, _volume() * 4])
    path = tmp_path / "BRATS_001.nii.gz"
    nibabel.Nifti1Image(volumes.T, np.diag([-1.0, -1, 3, 1])).to_filename(path)
    images = read_channels(path, ["flair", "", "-", "t2"])
    assert list(images) == ["flair", "t2"]
    np.testing.assert_array_equal(images["flair"].array, _volume())
    np.testing.assert_array_equal(images["t2"].array, _volume() * 4)
    assert images["t2"].geometry == images["flair"].geometry == Geometry(SIZE, (3.0, 1.0, 1.0))
    assert "thick slices" in images["t2"].warnings[0]


def test_channels_that_do_not_fit(tmp_path) -> None:
    path = tmp_path / "a.nii"
    nibabel.Nifti1Image(np.stack([_volume() * 0, _volume()]).T, np.eye(4)).to_filename(path)
    _refused(path, "4-D, 2 volumes. Split it, or say with channels which volume is which modality")
    with pytest.raises(InputError, match=r"a\.nii: channels names 3 volumes, the file has 2"):
        read_channels(path, ["t1", "t2", "flair"])
    with pytest.raises(InputError, match=r"a\.nii, volume 1 \(t1\): empty, every voxel is 0"):
        read_channels(path, ["t1", "t2"])
    assert list(read_channels(path, ["-", "t2"])) == ["t2"]
    assert peek_channels(path, ["-", "t2"])[0].size == SIZE
    for names in (["t1", "t1"], ["", "-"]):
        with pytest.raises(UsageError, match="every name once"):
            read_channels(path, names)


# Label maps.


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_label_maps_of_every_type(tmp_path, dtype) -> None:
    labels, geometry = read_label_map(_save(tmp_path / "a.nii.gz", (_volume() % 5).astype(dtype)))
    np.testing.assert_array_equal(labels, _volume() % 5)
    assert labels.dtype == np.int32
    assert geometry.size == SIZE


def test_label_map_with_a_scale_factor_and_an_empty_one(tmp_path) -> None:
    labels, _ = read_label_map(_save(tmp_path / "a.nii", _volume("int16"), slope=(2.0, 1.0)))
    np.testing.assert_array_equal(labels, _volume() * 2 + 1)
    assert not read_label_map(_save(tmp_path / "b.nii", np.zeros(SIZE, np.uint8)))[0].any()


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4"])
@pytest.mark.parametrize("enhancing", [3, 4])
def test_label_maps_saved_again_by_nibabel(tmp_path, dtype, enhancing) -> None:
    """What `get_fdata` and the file's own header make of labels; of 0 to 4 in a byte 1 becomes 64 * 4 / 255 = 1.004."""
    labels = np.array([0, 1, 2, enhancing])[_volume() % 4]
    first = nibabel.load(_save(tmp_path / "a.nii", labels.astype(dtype)))
    nibabel.Nifti1Image(first.get_fdata(), first.affine, first.header).to_filename(tmp_path / "b.nii")
    assert not np.array_equal(nibabel.load(tmp_path / "b.nii").get_fdata().T, labels)
    np.testing.assert_array_equal(read_label_map(tmp_path / "b.nii")[0], labels)


@pytest.mark.parametrize(("value", "whole"), [(2.00009, True), (1.99991, True), (2.001, False), (1.5, False)])
def test_rounding_is_a_label_and_a_fraction_is_none(tmp_path, value, whole) -> None:
    volume = _volume("float64")
    volume[2, 2, 2] = value
    path = _save(tmp_path / "a.nii", volume)
    if whole:
        assert read_label_map(path)[0][2, 2, 2] == 2
    else:
        with pytest.raises(InputError, match="Expected whole numbers"):
            read_label_map(path)


def test_probabilities_stored_as_scaled_bytes_are_no_labels(tmp_path) -> None:
    with pytest.raises(InputError, match="Expected whole numbers"):
        read_label_map(_save(tmp_path / "a.nii", _volume("uint8"), slope=(1 / 255, 0.0)))


def test_label_map_with_huge_values(tmp_path) -> None:
    with pytest.raises(InputError, match="values up to 4294967295"):
        read_label_map(_save(tmp_path / "a.nii", np.full(SIZE, 2**32 - 1, np.uint32)))


# Several images together.


def _grid(**changes: object) -> Geometry:
    return Geometry(**{"size": SIZE, "spacing_mm": (1.0, 1.0, 1.0), **changes})  # type: ignore[arg-type]


def test_grids_that_differ_are_tabled() -> None:
    grids = {
        "t1": (Path("/x/a_t1.nii"), _grid()),
        "t2": (Path("/x/a_t2.nii"), _grid(size=(50, 7, 8), spacing_mm=(3.0, 1.0, 1.0))),
        "flair": (Path("/x/a_fl.nii"), _grid(origin_mm=(0.0, 0.0, 0.02), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))),
    }
    with pytest.raises(InputError) as caught:
        check_same_grid(grids)
    advice, header, t1, t2, flair = str(caught.value).splitlines()
    assert "set on_mismatch to resample" in advice
    assert header.split()[:2] == ["file", "size"]
    assert " ".join(t1.split()) == "t1 a_t1.nii 8 x 7 x 6 1 x 1 x 1 0.00, 0.00, 0.00 LPS 0.000"
    assert " ".join(t2.split()) == "t2 a_t2.nii 8 x 7 x 50 1 x 1 x 3 0.00, 0.00, 0.00 LPS 142.000"  # 49 * 3 - 5
    assert " ".join(flair.split()) == "flair a_fl.nii 8 x 7 x 6 1 x 1 x 1 0.00, 0.00, 0.02 RPS 14.000"


def test_a_hundredth_of_a_millimetre_is_the_same_grid() -> None:
    check_same_grid({"t1": (Path("a"), _grid()), "t2": (Path("b"), _grid(origin_mm=(0.0, 0.009, 0.0)))})
    check_same_grid({"t1": (Path("a"), _grid())})


def test_the_same_content_as_two_modalities(tmp_path) -> None:
    a = read_image(_save(tmp_path / "a.nii", _volume()))
    b = read_image(_save(tmp_path / "b.nii.gz", _volume("float64")))
    c = read_image(_save(tmp_path / "c.nii", _volume() * 2))
    check_distinct({"t1": a, "t2": c})
    with pytest.raises(InputError, match=r"t1 and flair are the same image: .*a\.nii and .*b\.nii\.gz"):
        check_distinct({"t1": a, "t2": c, "flair": b})


def test_resampling_half_a_voxel_averages_neighbours(tmp_path) -> None:
    image = read_image(_save(tmp_path / "a.nii", _volume("float32")))
    shifted = resample_to(image, _grid(origin_mm=(0.5, 0.0, 0.0)))
    expected = (image.array[:, :, :-1] + image.array[:, :, 1:]) / 2
    np.testing.assert_allclose(shifted.array[:, :, :-1], expected, rtol=1e-6)
    assert not shifted.array[:, :, -1].any()


def test_resampling_fills_with_the_images_own_background(tmp_path) -> None:
    voxels = np.full((6, 7, 8), -5, np.float32)
    voxels[2:4, 2:5, 2:5] = 3
    image = read_image(_save(tmp_path / "a.nii", voxels))
    larger = resample_to(image, Geometry((10, 7, 8), (1.0, 1.0, 1.0)))
    assert set(np.unique(larger.array)) == {-5, 3}
    assert (larger.array == 3).sum() == 2 * 3 * 3


def test_resampling_to_flipped_axes_is_a_flip(tmp_path) -> None:
    image = read_image(_save(tmp_path / "a.nii", _volume("float32")))
    flipped = resample_to(image, _grid(origin_mm=(7.0, 0.0, 0.0), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1)))
    np.testing.assert_allclose(flipped.array, image.array[:, :, ::-1], rtol=1e-6)


def test_resampling_to_somewhere_else_is_refused(tmp_path) -> None:
    image = read_image(_save(tmp_path / "a.nii", _volume("float32")))
    with pytest.raises(InputError, match="nothing of it lies"):
        resample_to(image, _grid(origin_mm=(500.0, 0.0, 0.0)))


# MetaImage and NRRD that other writers make, against ITK or the format's definition.

_MHA = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 2 3 4\nElementType = MET_SHORT\n"


def _mha(path: Path, *lines: str) -> Path:
    path.write_bytes((_MHA + "\n".join([*lines, "ElementDataFile = LOCAL"]) + "\n").encode() + _counted("<i2"))
    return path


def _counted(kind: str) -> bytes:
    return np.arange(24, dtype=kind).tobytes()


@pytest.mark.parametrize("word", ["True", "T", "1", "true"])
def test_mha_truth_is_spelled_in_four_ways(tmp_path, word) -> None:
    path = tmp_path / "a.mha"
    path.write_bytes(f"{_MHA}BinaryDataByteOrderMSB = {word}\nElementDataFile = LOCAL\n".encode() + _counted(">i2"))
    np.testing.assert_array_equal(read_image(path).array.ravel(), np.arange(24))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(path)).ravel(), np.arange(24))


def test_mha_spacing_under_its_other_name(tmp_path) -> None:
    path = _mha(tmp_path / "a.mha", "ElementSize = 2 2 3")
    assert read_image(path).geometry.spacing_mm == (3.0, 2.0, 2.0)
    assert sitk.ReadImage(path).GetSpacing() == (2.0, 2.0, 3.0)


def test_mha_whose_voxels_do_not_follow_the_header_is_refused(tmp_path) -> None:
    _refused(_mha(tmp_path / "a.mha", "HeaderSize = -1"), "HeaderSize")


def test_mha_axes_longer_than_one_are_millimetres(tmp_path) -> None:
    """Steps of 2 x 1.5 mm along each axis: voxels of 27 mm3, where the spacing alone says 3.4."""
    path = _mha(tmp_path / "a.mha", "ElementSpacing = 1.5 1.5 1.5", "TransformMatrix = 2 0 0 0 2 0 0 0 2")
    geometry = read_image(path).geometry
    assert geometry.spacing_mm == pytest.approx((3.0, 3.0, 3.0))
    assert geometry.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    theirs = sitk.ReadImage(path)
    assert geometry.corners_mm()[7] == pytest.approx(theirs.TransformIndexToPhysicalPoint((1, 2, 3)))


def test_sheared_axes_are_said_in_every_format(tmp_path) -> None:
    path = _mha(tmp_path / "a.mha", "TransformMatrix = 1 0 0 0.6 0.8 0 0 0 1")
    nrrd = _nrrd(tmp_path / "a.nrrd", "space directions: (1,0,0) (0.6,0.8,0) (0,0,1)", "space: LPS")
    for image in (read_image(path), read_image(nrrd)):
        assert "sheared axes, off by" in image.warnings[0]
        matrix = image.geometry.direction_matrix
        np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)


def _nrrd(path: Path, *lines: str, endian: str = "endian: little\n") -> Path:
    start = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nencoding: raw\n{endian}"
    path.write_bytes((start + "\n".join(lines) + "\n\n").encode() + _counted("<i2"))
    return path


def test_nrrd_without_the_order_of_its_bytes_is_refused(tmp_path) -> None:
    _refused(_nrrd(tmp_path / "a.nrrd", "spacings: 1 1 1", endian=""), "cannot be read")


def test_nrrd_with_a_field_twice_is_refused(tmp_path) -> None:
    _refused(_nrrd(tmp_path / "a.nrrd", "spacings: 1 1 1", "spacings: 2 2 2"), "twice")
    _refused(_nrrd(tmp_path / "b.nrrd", "spacings: 1 1 1", "sizes: 4 3 2"), "twice")


def test_nrrd_origin_of_one_number_is_refused(tmp_path) -> None:
    lines = ("space: LPS", "space directions: (1,0,0) (0,1,0) (0,0,1)", "space origin: (5)")
    _refused(_nrrd(tmp_path / "a.nrrd", *lines), "cannot be read")


@pytest.mark.parametrize("name", ["centers", "centerings"])
def test_nrrd_centres_under_both_names(tmp_path, name) -> None:
    path = _nrrd(tmp_path / "a.nrrd", "spacings: 2 2 2", "axis mins: 0 0 0", f"{name}: node node node")
    assert read_image(path).geometry.origin_mm == (0.0, 0.0, 0.0)


def test_nrrd_space_with_time_which_itk_takes_for_lps_is_refused(tmp_path) -> None:
    start = "NRRD0004\ntype: short\ndimension: 4\nsizes: 2 3 4 1\nencoding: raw\nendian: little\nspace: RAST\n"
    directions = "space directions: (1,0,0,0) (0,1,0,0) (0,0,1,0) (0,0,0,1)\nspace origin: (5,6,7,0)\n\n"
    (tmp_path / "a.nrrd").write_bytes((start + directions).encode() + _counted("<i2"))
    assert sitk.ReadImage(tmp_path / "a.nrrd").GetOrigin()[:3] == (5.0, 6.0, 7.0)  # RAS, so (-5, -6, 7) in LPS
    _refused(tmp_path / "a.nrrd", "the space RAST, which is not read")


def test_thousands_of_dimensions_take_no_memory(tmp_path) -> None:
    """A header of 24 kB; a matrix of so many axes would take 1 GB."""
    many = " ".join(["1"] * 12_000)
    (tmp_path / "a.mha").write_text(
        f"NDims = 12000\nDimSize = {many}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    _refused(tmp_path / "a.mha", "damaged")
    (tmp_path / "a.nrrd").write_text(f"NRRD0004\ntype: uchar\ndimension: 12000\nsizes: {many}\nencoding: raw\n\n")
    _refused(tmp_path / "a.nrrd", "damaged")


def test_the_unit_of_length_counts_for_the_voxel_sizes_too(tmp_path) -> None:
    """2 mm in metres are 2.00000009 mm in float32, which are no thick slices."""
    image = nib.Nifti1Image(_volume(), np.diag([0.002, 0.002, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii")
    found = read_image(tmp_path / "a.nii")
    assert found.geometry.spacing_mm == pytest.approx((2.0, 2.0, 2.0), abs=2e-7)
    assert not [warning for warning in found.warnings if "thick" in warning]


# Real patients. Damage of any kind is for harm_inputs.py.


def test_real_patients_are_read_without_a_warning_and_as_nibabel_reads_them(cases_dir) -> None:
    names = ["BraTS-GLI-00002-000", "BraTS20_Training_001", "Brats18_2013_20_1"]
    paths = [path for name in names for path in sorted((cases_dir / name).glob("*.nii.gz")) if "seg" not in path.name]
    assert len(paths) == 12
    for path in paths[::5]:
        image = read_image(path)
        np.testing.assert_array_equal(image.array, nibabel.load(path).get_fdata(dtype=np.float32).T)
        itk = sitk.ReadImage(str(path))
        assert image.geometry == Geometry(
            (155, 240, 240), itk.GetSpacing()[::-1], itk.GetOrigin(), tuple(itk.GetDirection())
        )
        assert image.warnings == ()


@pytest.mark.slow
def test_all_real_patients_are_read_without_a_warning(cases_dir) -> None:
    paths = sorted(cases_dir.glob("*/*.nii.gz"))
    assert len(paths) == 5 * len(list(cases_dir.iterdir())) > 0  # four sequences and the mask of each
    for path in paths:
        if path.name.endswith("seg.nii.gz"):
            assert set(np.unique(read_label_map(path)[0])) <= {0, 1, 2, 3, 4}
        else:
            assert read_image(path).warnings == ()
