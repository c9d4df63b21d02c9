"""What the words in names of MR images say: the sequence, a contrast agent, or that a file is no image to segment.

The words are those of BraTS, BIDS and the public glioma collections (TCGA, UPENN-GBM, UCSF-PDGM, LUMIERE), and of the
protocols of the large manufacturers, of which many centres keep the names (`t1_mprage_tra`, `t2_spc_da-fl`,
`Ax T1 FSPGR +C`, `T1W_3D_TFE`); German words too (`KM`, `nativ`). All are lower case, without accents.
"""

from __future__ import annotations

from a2fseg_cli.modalities import MODALITIES

# Words that name a sequence by themselves: those of the table, and spellings of protocols. `t1n` and `t1pre` also say
# that there is no contrast agent.
SEQUENCES = {
    word: row.name for row in MODALITIES if not row.contrast_of for word in (row.name, *row.aliases, *row.bids_suffixes)
} | {"t1wi": "t1", "t2wi": "t2", "darkfluid": "flair", "dafl": "flair"}
# Of gradient echoes that are T1-weighted wherever they are used for tumours.
T1_PULSES = frozenset(("mprage", "bravo", "spgr", "fspgr", "irspgr", "irfspgr", "vibe", "tfl3d"))

AGENTS = frozenset(
    ("gd", "gad", "gado", "gadolinium", "gadovist", "gadavist", "gadoterate", "dotarem", "magnevist", "prohance",
     "multihance", "omniscan", "clariscan", "contrast", "contrasted", "contraste", "kontrast", "kontrastmittel", "km",
     "ce", "c", "inj", "enh", "enhanced", "postcontrast", "postgad", "postgd", "postkm", "postc", "mdc", "postgado",
     "gdtpa", "dtpa", "contrasto", "injection", "nachkm", "mitkm")
)  # fmt: skip
POST = frozenset(("post", "nach", "after", "apres", "dopo", "despues"))
# "post" followed by one of these is a time after a treatment.
TREATMENTS = frozenset(
    ("op", "operative", "surgery", "surgical", "resection", "rt", "radiation", "radiotherapy", "chemo", "treatment",
     "therapy", "tx")
)  # fmt: skip
PRE = frozenset(("pre", "native", "nativ", "plain", "unenhanced", "noncontrast", "precontrast", "pregad", "t1n",
                 "t1pre", "nogad", "nokm", "noncon", "pregd", "prekm", "vorkm",
                 "ohnekm"))  # fmt: skip
NEGATIONS = frozenset(("no", "non", "wo", "without", "ohne", "sans", "sin", "senza", "pre", "minus", "kein", "vor",
                       "before", "avant", "antes", "prima"))  # fmt: skip

# May stand among the words of a sequence without saying which it is; also steps that leave an image of it.
DESCRIPTIONS = frozenset(
    ("ax", "axial", "axiale", "sag", "sagittal", "cor", "coronal", "tra", "trans", "transversal", "transverse", "obl",
     "oblique", "2d", "3d", "iso", "isotropic", "vol", "volume", "se", "tse", "fse", "frfse", "xl", "ir", "tir",
     "tirm", "tfe", "ffe", "fl3d", "fl2d", "gre", "gr", "fs", "fatsat", "spair", "spir", "blade", "propeller", "mvxd",
     "space", "spc", "cube", "vista", "view", "turbo", "mpr", "weighted", "w", "wi", "f", "mr", "mri", "hr", "hires",
     "longtr", "long", "tr", "thin", "thick", "slice", "high", "res", "std", "standard", "stealth", "navi", "brainlab",
     "brain", "head", "neuro", "cranium", "kranium", "schaedel", "cerebral", "whole", "mprage", "bravo", "spgr",
     "fspgr", "vibe", "rage", "mp", "p2", "p3", "p4", "ns", "dark", "fluid", "da", "fl", "images", "image", "iv",
     "with", "bet", "stripped", "skullstripped", "reg", "registered", "coreg", "coregistered", "n4", "preproc", "norm",
     "normalized", "resampled", "aligned", "skull", "strip", "r2s", "sri", "sri24", "mni", "orig",
     "bias", "corrected", "bfc", "biascorrected", "defaced", "scan", "restore", "final", "warped", "wip", "mrhr", "pd",
     "dual")
)  # fmt: skip
# What follows one of these is the image that another was brought to: `FLAIR_to_T1` is a FLAIR.
TARGETS = frozenset(("to", "onto", "in", "on"))
# Before a sequence these say that the image is nobody's: `MNI152_T1_1mm`.
TEMPLATES = frozenset(("mni152", "icbm", "icbm152", "template", "atlas"))

TRUTHS = frozenset(
    ("seg", "segmentation", "segm", "dseg", "truth", "groundtruth", "gt", "label", "labels", "tumorseg", "tumourseg")
)
OWN = "a2fseg"
# Made of images, by a model or by hand: never an image.
DERIVED = TRUTHS | frozenset(
    ("mask", "masks", "brainmask", "probseg", "roi", "rois", "pred", "prediction", "predictions", "prob", "probs",
     "probability", "probabilities", "attention", "uncertainty", "entropy", "overlay", "preview", "region", "regions",
     "lesion", "lesions", "subtraction", "subtracted", "subtract", "map", "maps", "mapping", "t1map", "t2map", "warp",
     "warpfield", "xfm", "transform", "displacement", "jacobian", "pve", "pveseg", "gm", "wm", "csf", "aseg", "aparc",
     "parcellation", "biasfield", "fieldmap", "b1map", "glistrboost", "manuallycorrected", OWN)
)  # fmt: skip
# Other kinds of image, with the sequences' names in some of theirs (`DCE_T1`, `ep2d_diff_T2`).
OTHERS = frozenset(
    ("adc", "dwi", "dti", "diff", "diffusion", "trace", "tracew", "fa", "md", "ep2d", "epi", "b0", "b1000", "bval",
     "colfa", "eadc", "swi", "swan", "minip", "mip", "phase", "pha", "ph", "phmag", "imaginary", "real", "mag", "perf",
     "perfusion", "pwi", "dsc", "dce", "asl", "cbf", "cbv", "rcbv", "rcbf", "mtt", "ttp", "tmax", "pbp", "ktrans",
     "twist", "dynamic", "bold", "fmri", "rest", "task", "loc", "localizer", "localiser", "localisation", "scout",
     "survey", "aahead", "aahscout", "aascout", "planeloc", "calibration", "asset", "tof", "mra", "mrv", "angio",
     "venogram", "mrs", "csi", "svs", "spectro", "spectroscopy", "stir", "star", "t2star", "t2s", "t1rho", "ciss",
     "ciss3d", "fiesta", "trufi", "magnitude", "magnitude1", "magnitude2", "phasediff", "hemo", "haemo", "heme",
     "t2starw", "inplanet1", "inplanet2", "pdt2", "pdw", "unit1", "mp2rage", "megre", "mese", "irt1", "vfa",
     "defacemask", "noddi", "icvf", "hardi", "l1", "l2", "l3", "sbref", "physio")
)  # fmt: skip
# Other machines: a file of theirs, unless a sequence is named as well (`PET_T1` may be the name of a study).
SCANNERS = frozenset(("ct", "pet"))
PREDICTIONS = frozenset((OWN, "pred", "prediction", "predictions", "prob", "probs", "attention", "autoseg"))
NO_TUMOUR = frozenset(("brain", "parenchyma", "tissue", "head", "skull", "aparc", "aseg"))
# A word that is made of these and of a sequence is read in parts: `axt1`, `t1postgad`, `t2tse`, `flair3d`.
PARTS = frozenset(
    ("t1", "t1w", "t2", "t2w", "flair", "mprage", "fspgr", "bravo", "vibe", "ax", "sag", "cor", "tra", "2d", "3d", "se",
     "tse", "fse", "space", "spc", "cube", "tfe", "ffe", "tirm", "longtr", "fs", "iso", "mpr", "fl3d", "fl2d", "blade",
     "brain", "gd", "gad", "gado", "km", "ce", "post", "pre", "contrast", "nativ", "native", "no", "non", "n4", "bet",
     "nach", "mit", "vor", "ohne")
)  # fmt: skip
