"""What timm's policies choose among, and what a magnitude means in them.

The facts are those of timm's documentation and of the recipes that it took over.
"""

from __future__ import annotations

from ppcls.data.transforms.autoaugment import IMAGENET
from ppcls.data.transforms.policy import Action, SubPolicy

DENOMINATOR = 10  # magnitudes are tenths

# Where the operation's amount is plain in the magnitude. As in the first implementation on TPUs,
# posterize and solarize are weaker, and enhancements go from dull to vivid, with the magnitude.
PLAIN: dict[str, Action] = {
    "autocontrast": Action("autocontrast"),
    "equalize": Action("equalize"),
    "invert": Action("invert"),
    "rotate": Action("rotate", scale=30, signed=True),
    "posterize": Action("posterize", scale=4, rounding=int),
    "solarize": Action("solarize", scale=256, rounding=int, high=256),
    "solarize_add": Action("solarize_add", scale=110, rounding=int, high=128),
    "color": Action("color", offset=0.1, scale=1.8),
    "contrast": Action("contrast", offset=0.1, scale=1.8),
    "brightness": Action("brightness", offset=0.1, scale=1.8),
    "sharpness": Action("sharpness", offset=0.1, scale=1.8),
    "shear_x": Action("shear_x", scale=0.3, signed=True),
    "shear_y": Action("shear_y", scale=0.3, signed=True),
    "translate_x": Action("translate_x", scale=0.45, signed=True),
    "translate_y": Action("translate_y", scale=0.45, signed=True),
}
# Where every operation is stronger with the magnitude (inc1).
INCREASING: dict[str, Action] = PLAIN | {
    "posterize": Action("posterize", offset=4, scale=-4, rounding=int),
    "solarize": Action("solarize", offset=256, scale=-256, rounding=int, low=0),
    "color": Action("color", offset=1, scale=0.9, signed=True, low=0.1),
    "contrast": Action("contrast", offset=1, scale=0.9, signed=True, low=0.1),
    "brightness": Action("brightness", offset=1, scale=0.9, signed=True, low=0.1),
    "sharpness": Action("sharpness", offset=1, scale=0.9, signed=True, low=0.1),
}
OF_THREE_AUGMENT: dict[str, Action] = {
    "desaturate": Action("color", offset=0.5, scale=-0.5, low=0, high=0.5),
    "gaussian_blur": Action("gaussian_blur", offset=0.1, scale=1.9, high=2),
    "random_gaussian_blur": Action("random_gaussian_blur", scale=2, high=2),
}


# What `w` and `t` name: how likely each operation is, relative to the others. Chosen by weight, an
# operation comes once a picture; the others may repeat.
W0: dict[str, float] = dict.fromkeys(PLAIN, 0.005) | {
    "rotate": 0.3,
    "shear_x": 0.2,
    "shear_y": 0.2,
    "translate_x": 0.1,
    "translate_y": 0.1,
    "color": 0.025,
    "sharpness": 0.025,
    "autocontrast": 0.025,
    "posterize": 0,
    "invert": 0,
}
WEIGHTS: dict[str, float] = dict.fromkeys(PLAIN, 0.05) | {
    "rotate": 3,
    "shear_x": 2,
    "shear_y": 2,
    "translate_x": 1,
    "translate_y": 1,
    "color": 0.25,
    "sharpness": 0.25,
    "autocontrast": 0.25,
}
WEIGHTS_3A: dict[str, float] = {
    "solarize": 6,
    "desaturate": 6,
    "gaussian_blur": 6,
    "rotate": 3,
    "shear_x": 2,
    "shear_y": 2,
    "posterize": 1,
    "autocontrast": 1,
    "color": 1,
    "sharpness": 1,
    "contrast": 1,
    "brightness": 1,
    "equalize": 1,
    "invert": 1,
}

# The operations that AugMix chains. The enhancements are not in the paper.
AUGMIX: dict[str, Action] = {
    name: action
    for name, action in INCREASING.items()
    if name not in ("invert", "solarize_add", "translate_x", "translate_y")
} | {
    "translate_x": Action("translate_x", scale=0.3, signed=True),
    "translate_y": Action("translate_y", scale=0.3, signed=True),
}

# (operation, probability, magnitude 0-10), from EfficientNet's training code.
V0: tuple[SubPolicy, ...] = (
    (("equalize", 0.8, 1), ("shear_y", 0.8, 4)),
    (("color", 0.4, 9), ("equalize", 0.6, 3)),
    (("color", 0.4, 1), ("rotate", 0.6, 8)),
    (("solarize", 0.8, 3), ("equalize", 0.4, 7)),
    (("solarize", 0.4, 2), ("solarize", 0.6, 2)),
    (("color", 0.2, 0), ("equalize", 0.8, 8)),
    (("equalize", 0.4, 8), ("solarize_add", 0.8, 3)),
    (("shear_x", 0.2, 9), ("rotate", 0.6, 8)),
    (("color", 0.6, 1), ("equalize", 1.0, 2)),
    (("invert", 0.4, 9), ("rotate", 0.6, 0)),
    (("equalize", 1.0, 9), ("shear_y", 0.6, 3)),
    (("color", 0.4, 7), ("equalize", 0.6, 0)),
    (("posterize", 0.4, 6), ("autocontrast", 0.4, 7)),
    (("solarize", 0.6, 8), ("color", 0.6, 9)),
    (("solarize", 0.2, 4), ("rotate", 0.8, 9)),
    (("rotate", 1.0, 7), ("translate_y", 0.8, 9)),
    (("shear_x", 0.0, 0), ("solarize", 0.8, 4)),
    (("shear_y", 0.8, 0), ("color", 0.6, 4)),
    (("color", 1.0, 0), ("rotate", 0.6, 2)),
    (("equalize", 0.8, 4), ("equalize", 0.0, 8)),
    (("equalize", 1.0, 4), ("autocontrast", 0.6, 2)),
    (("shear_y", 0.4, 7), ("solarize_add", 0.6, 7)),
    (("posterize", 0.8, 2), ("solarize", 0.6, 10)),
    (("solarize", 0.6, 8), ("equalize", 0.6, 1)),
    (("color", 0.8, 6), ("rotate", 0.4, 5)),
)
THREE_AUGMENT: tuple[SubPolicy, ...] = (
    (("solarize", 1.0, 5),),
    (("desaturate", 1.0, 10),),
    (("random_gaussian_blur", 1.0, 10),),
)
# Keys of strings: the table, and what its magnitudes mean. The variants differ in posterize only.
POLICIES: dict[str, tuple[tuple[SubPolicy, ...], dict[str, Action]]] = {
    "v0": (V0, PLAIN),
    "v0r": (V0, PLAIN | {"posterize": INCREASING["posterize"]}),
    "original": (
        IMAGENET,
        PLAIN | {"posterize": Action("posterize", offset=4, scale=4, rounding=int)},
    ),
    "originalr": (IMAGENET, PLAIN | {"posterize": INCREASING["posterize"]}),
    "3a": (THREE_AUGMENT, PLAIN | OF_THREE_AUGMENT),
}
