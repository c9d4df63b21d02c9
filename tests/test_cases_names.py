"""What names of real files say, and dcm2niix's JSON beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fseg_cli.cases.names import Kind, image_stem, modality_of, read_name
from a2fseg_cli.cases.sidecar import identify, sequence_by_times
from a2fseg_cli.modalities import BRATS_MODALITIES, MODALITIES

# What each name is: a modality; `aside` for masks, maps and other kinds of image; `unclear` for what looks like a
# sequence and cannot be told; `unread` for a name that says nothing.
NAMES = {
    "t1": """
        BraTS20_Training_001_t1 BraTS-GLI-00000-000-t1n sub-01_T1w sub-01_acq-mprage_T1w sub-01_ce-none_T1w T1 t1w
        T1_pre T1_skull_strip T1_r2s_bet_reg t1_to_SRI_brain T1_brain T1_AX_SE_10_se2d1 study1_T1W T1_nativ T1_ohne_KM
        T1_without_contrast T1_without_IV_contrast T1_wo_gad T1_non_contrast T1_PRE_GAD AX_T1_PRE T1_precontrast
        t1_mprage_sag_p2_iso
        003_t1_mprage_sag_20190101 T1_in_MNI152 VSD.Brain.XX.O.MR_T1.54513 T1_post_op postop_T1 flair01_t1
        segment_mask01_t1 Brats18_T1_study x_t1_0000 3DT1 sT1W_3D_TFE_T1 T1_to_FLAIR T1_in_T2_space C3N-00016_T1 PET_T1
        UCSF-PDGM-0004_T1_bias Ax_T1_FSE t1_tse_tra T1SE t1_vibe_tra t1_fl3d_sag T1_biascorrected MPRAGE SAG_BRAVO
    """,
    "t1c": """
        BraTS20_Training_001_t1ce BraTS-GLI-00000-000-t1c UPENN-GBM-00001_11_T1GD TCGA-02-0006_1996.08.23_t1Gd T1CE
        sub-01_ce-GD_T1w sub-01_ses-2_ce-gadolinium_acq-mprage_run-1_T1w ce-GD_T1w sub-01_acq-postgad_T1w P1_T1_Gd
        P1_CE_T1 P1_T1+ T1+C T1_+C Ax_T1_FSPGR_+C BRAVO_+C T1+Gd T1-post t1_contrast T1c_brain T1_Gd_bet_n4 T1_MPRAGE_GD
        t1_mprage_tra_KM T1_SE_AX_POST_GAD CT1 CT1_r2s_bet_reg ct1_skull_strip T1CE_to_SRI_brain T1wCE T1wGd T1post
        MRHR_T1_AX_POST_GAD_SE_13_se2d1r VSD.Brain.XX.O.MR_T1c.54514 MPRAGE_GD SAG_3D_T1_MPRAGE_post axt1postgad
        T1c_study UCSF-PDGM-0004_T1c_bias T1_with_contrast T1_kontrast t1_mpr_post_contrast T1_AX_POST
        AX_T1_POST_CONTRAST t1_se_tra_Gd WIP_T1W_3D_TFE_Gd T1_C t1_tse_fs_tra_KM_5 T1W_enhanced
        Cor_T1_Post_Gad T1_gadovist cet1w gdt1 T1_pre_op_Gd T1_post_op_gad
    """,
    "t2": """
        BraTS20_Training_001_t2 BraTS-GLI-00000-000-t2W x-t2w sub-01_T2w T2W_TSE t2_tse_tra T2_r2s_bet_reg
        T2_skull_strip MRHR_T2_AX_SE_2_tse2d1_11 study1_T2W VSD.Brain.XX.O.MR_T2.54515 t2fse t2tse_ax Ax_T2_PROPELLER
        t2_spc_sag Brats18_T1_study_t2 T2_to_T1 t2_blade_tra T2_FRFSE UCSF-PDGM-0004_T2_bias 5_T2_COR T2W_TSE_AX_301
    """,
    "flair": """
        BraTS20_Training_001_flair BraTS-GLI-00000-000-t2f sub-01_FLAIR sub-01_acq-T1_FLAIR sub-01_space-T1w_FLAIR x_fla
        FLAIR FLAIR_longTR FLAIR_scan FLAIR_r2s_bet_reg flair_coreg_brain FLAIR_to_T1_reg P1_FLAIR_in_T1 T2_FLAIR
        P1_T2_FLAIR t2flair MRHR_FLAIR_AX_SE_IR_5_tir2d1_21 study1_FLAIR VSD.Brain.XX.O.MR_Flair.54512 Ax_T2_FLAIR
        t2_tirm_tra_dark-fluid t2_spc_da-fl_sag 3D_FLAIR_CUBE t2_space_dark-fluid_sag_p2_iso axt2flair FLAIR_post_gad
        Brats18_T1_study_flair UPENN-GBM-00001_11_FLAIR sag_3d_flair flair3d T2W_FLAIR
    """,
    "aside": """
        x_seg x_t1_seg seg_t1 x_t1_mask x_mask_t1 T1_brain_mask brain_mask case_attention_t1c case_attention_t1_ce
        case_prob_t1 case_a2fseg_x_y_flair x_T2star x_T2* sub-01_label-tumour_mask t2_fl2d_tra_hemo T2_FFE T2_GRE
        ep2d_diff_tra_ADC ep2d_diff_3scan_trace DWI_b1000 DCE_T1 T1_DCE DSC_perfusion 3_Plane_Loc localizer SWI_mip
        T1_subtraction T1_post_sub T1_map T2_map T1map sub-01_task-rest_bold sub-01_dwi sub-01_part-phase_T1w
        MNI152_T1_1mm CT_head tof_3d_multi-slab t2_ciss3d T2_STIR ADC_in_T1 T1_pveseg region_WT FLAIR_to_T1_warp
        UCSF-PDGM-0004_brain_parenchyma_segmentation TCGA-02-0006_GlistrBoost T1_ph FLAIR_lesions rCBV_to_T1
    """,
    "unclear": """
        post_T1 AX_POST_T1 T1_FLAIR t1_tirm_tra_dark-fluid case_t1_t2_flair t2_tirm_cor t2_pd T1_pre_post_gad_post
        sub-01_acq-post_T1w reg_to_T1 T1_T2_fused PD_T2_FSE t2_tse_pd+t2
    """,
    "unread": "brain flair01 scan.12 c1T1 MNI152 study_3 ___ 20190101_5 T22_x xt1x",
}


def said(name: str, modalities=BRATS_MODALITIES) -> str:
    reading = read_name(name, modalities)
    if reading.kind is Kind.IMAGE:
        return modality_of(reading.sequence, modalities) or "none"
    return reading.kind.name.lower()


@pytest.mark.parametrize(("name", "expected"), [(n, kind) for kind, text in NAMES.items() for n in text.split()])
def test_modality_by_name(name, expected) -> None:
    assert said(name) == expected
    assert said(name.upper()) == expected
    assert said(name.replace("_", " ")) == expected or "-" in name  # BIDS names are written with _


@pytest.mark.parametrize("name", ["x_t1.png", "x_t1.nii.gz.part", "._x_t1.nii.gz", ".nii.gz", "t1"])
def test_other_files_are_no_images(name) -> None:
    assert image_stem(Path(name)) is None


@pytest.mark.parametrize("name", ["x_t1.nii", "x_t1.NII.GZ", "x_t1.nrrd", "x_t1.MHA"])
def test_images_by_their_extension(name) -> None:
    assert image_stem(Path(name)) == "x_t1"


@given(
    st.text("abcXYZ0123456789_-. ", max_size=20),
    st.sampled_from([(row.name, word) for row in MODALITIES for word in (row.name, *row.aliases)]),
    st.sampled_from("_-. "),
    st.booleans(),
)
def test_every_alias_counts_after_any_name(patient, pair, separator, upper) -> None:
    modality, alias = pair
    name = f"p{patient}{separator}{alias}"
    assert said(name.upper() if upper else name) == modality


@given(st.text(max_size=30), st.sampled_from([BRATS_MODALITIES, ("t1", "t1ce"), ("adc", "t2"), ("x",)]))
def test_no_name_breaks_it(stem, modalities) -> None:
    assert said(stem, modalities) in (*modalities, *BRATS_MODALITIES, "none", "aside", "unclear", "unread")


WORDS = ["t1", "t2", "flair", "post", "pre", "gd", "no", "km", "ax", "3d", "to", "in", "seg", "adc", "mprage", "c", "f"]
WORDS += ["12", "x", "sub-1", "ce-gd", "T1w", "_", "+", "(", "w/o"]


@given(st.lists(st.sampled_from(WORDS), max_size=7), st.sampled_from(["_", "-", " ", ""]))
def test_no_order_of_known_words_breaks_it(words, separator) -> None:
    reading = read_name(separator.join(words))
    assert (reading.kind is Kind.UNCLEAR) == bool(reading.reason)
    assert (reading.kind is Kind.IMAGE) <= (reading.sequence in BRATS_MODALITIES)


def test_other_modalities_go_by_their_own_name() -> None:
    assert said("x_ADC", ("adc", "t2")) == "adc"
    assert said("x_t1ce", ("t1", "t1ce")) == "t1ce"
    assert said("x_t1gd", ("t1", "t1ce")) == "t1ce"
    assert said("x_t1ce", ("t1c", "t1ce")) == "t1ce"  # own name before another one's alias
    assert said("sub-1_ce-GD_T1w", ("t1", "t2")) == "none"  # never a T1 without contrast
    assert said("adc_mask", ("adc",)) == "aside"


def test_what_decided_is_kept_and_doubt_has_a_reason() -> None:
    assert read_name("MRHR_T1_AX_POST_GAD_SE_13").words == "MRHR T1 AX POST GAD SE"
    assert read_name("post_T1").reason == 'may be t1 or t1c: "post" may mean a contrast agent or a time'
    assert "without contrast" in read_name("MPRAGE").remark
    assert "GAD stands before" in read_name("GAD-012_T1w").remark  # a study of anxiety
    assert read_name("T1").remark == ""


@pytest.fixture
def beside(tmp_path: Path):
    """Write a JSON beside an image of this name; returns what the image then is."""

    def write(name: str, **fields: object):
        path = tmp_path / f"{name}.nii.gz"
        path.with_name(f"{name}.json").write_text(json.dumps(fields))
        return identify(path)

    return write


T1_SE = {"RepetitionTime": 0.55, "EchoTime": 0.012, "ScanningSequence": "SE"}
T2_SE = {"RepetitionTime": 5.0, "EchoTime": 0.1, "ScanningSequence": "SE"}
FLAIR = {"RepetitionTime": 9.0, "EchoTime": 0.09, "InversionTime": 2.5, "ScanningSequence": "SE_IR"}
T1_FLAIR = {"RepetitionTime": 2.5, "EchoTime": 0.02, "InversionTime": 0.9, "ScanningSequence": "SE_IR"}
MPRAGE = {"RepetitionTime": 2.3, "EchoTime": 0.003, "InversionTime": 0.9, "ScanningSequence": "GR_IR"}


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("scan_3", {"SeriesDescription": "Ax T1 POST GAD"}, "t1c"),
        ("scan_3", {"ProtocolName": "t2_tse_tra"}, "t2"),
        ("scan_3", {"SeriesDescription": "AX 3", "ProtocolName": "FLAIR"}, "flair"),
        ("T1", {"SeriesDescription": "t1_mprage", "ContrastBolusAgent": "Gadovist"}, "t1c"),
        ("T1", {"ContrastBolusAgent": "GADOLINIUM 7ml", **T1_SE}, "t1c"),
        ("T1", {"ContrastBolusAgent": "NONE", **T1_SE}, "t1"),
        ("T2", {"ContrastBolusAgent": "Gadovist", **T2_SE}, "t2"),
        ("post_T1", {"ContrastBolusAgent": "Gadovist"}, "t1c"),
        ("T1c", {"SeriesDescription": "t1_mprage_tra", **MPRAGE}, "t1c"),  # the name says what the other leaves open
        ("T2", {"SeriesDescription": "Ax T2 FLAIR", **FLAIR}, "flair"),
        ("T1_FLAIR", FLAIR, "flair"),
        ("t2_tirm_cor", FLAIR, "flair"),
        ("scan_3", FLAIR, "flair"),
        ("scan_3", T2_SE, "t2"),
        ("scan_3", T1_SE, "t1"),
        ("scan_3", {**T1_SE, "ContrastBolusAgent": "Dotarem"}, "t1c"),
        ("T1", MPRAGE, "t1"),
        ("T1_FLAIR", T1_FLAIR, "t1"),
        ("T1_FLAIR_Gd", T1_FLAIR, "t1c"),
        ("T1", {"ContrastBolusIngredient": "GADOLINIUM"}, "t1c"),
    ],
)
def test_the_json_beside_an_image_counts(beside, name, fields, expected) -> None:
    reading = beside(name, **fields)
    assert (reading.kind, reading.sequence) == (Kind.IMAGE, expected)


@pytest.mark.parametrize(
    ("name", "fields", "kind"),
    [
        ("scan_3", {"SeriesDescription": "ep2d_diff_3scan_trace_ADC"}, Kind.ASIDE),
        ("T2", {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, Kind.ASIDE),
        ("T1_post", {"ImageType": ["DERIVED", "SECONDARY", "SUBTRACTION"]}, Kind.ASIDE),
        ("scan_3", {"ScanningSequence": "EP", "EchoTime": 0.09, "RepetitionTime": 5.0}, Kind.ASIDE),
        ("T2", FLAIR, Kind.UNCLEAR),  # the name says one thing, the times another
        ("T1c", T2_SE, Kind.UNCLEAR),
        ("T1_pre", {"ContrastBolusAgent": "Gadovist"}, Kind.UNCLEAR),
        ("scan_3", {"SeriesDescription": "post T1"}, Kind.UNCLEAR),
        ("scan_3", MPRAGE, Kind.UNREAD),  # time of flight has such times, too
        ("scan_3", {"SeriesDescription": ""}, Kind.UNREAD),
        ("scan_3", {"SeriesDescription": 7, "EchoTime": "0.1", "RepetitionTime": True}, Kind.UNREAD),
    ],
)
def test_the_json_leaves_aside_or_open(beside, name, fields, kind) -> None:
    assert beside(name, **fields).kind is kind


def test_what_the_json_decided_is_kept(beside) -> None:
    assert beside("x", SeriesDescription="Ax T1 POST").words == 'SeriesDescription: "Ax T1 POST"'
    reading = beside("T2", SeriesDescription="FLAIR")
    assert reading.remark == 'taken as flair by its SeriesDescription: "FLAIR", though its name says t2'
    assert "TR 9 s TE 0.09 s TI 2.5 s" in beside("T2", **FLAIR).reason
    assert beside("T1", ContrastBolusAgent="Gd").words == 'name: T1, ContrastBolusAgent: "Gd"'


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": NaN}', b"\xff", b'{"SeriesDescription": "\\u0007T1c"}'])
def test_a_json_that_is_none_says_nothing(tmp_path, content) -> None:
    (tmp_path / "T2.json").write_bytes(content)
    assert identify(tmp_path / "T2.nii.gz").sequence == "t2"


def test_times_at_the_bounds() -> None:
    assert sequence_by_times({"EchoTime": 0.03, "RepetitionTime": 1.2}) == "t1"
    assert sequence_by_times({"EchoTime": 0.031, "RepetitionTime": 1.2}) is None
    assert sequence_by_times({"EchoTime": 0.07, "RepetitionTime": 2.0}) == "t2"
    assert sequence_by_times({"EchoTime": 0.07, "RepetitionTime": 2.0, "InversionTime": 0.16}) is None  # STIR
    assert sequence_by_times({"EchoTime": 0.07, "InversionTime": 1.5}) == "flair"
    assert sequence_by_times({"EchoTime": 0.03, "RepetitionTime": 3.0}) is None  # proton density
    assert sequence_by_times({"EchoTime": 0.03, "RepetitionTime": 3.0, "InversionTime": 1.3}) == "t1"
    assert sequence_by_times({"EchoTime": 0.03, "RepetitionTime": 3.0, "InversionTime": 0.25}) is None  # STIR
    assert sequence_by_times({}) is None
