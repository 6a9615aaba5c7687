"""What the tables of DAMRO print: POPE, CHAIR, MME and GPT-4V. Source: the README of github.com/coder-gx/DAMRO.

Percentages are texts, as printed, so that their rounding is known; two that lack their last 0 have it here.
"""

from __future__ import annotations

from fractions import Fraction

POPE: dict[str, dict[str, tuple[str, ...]]] = {  # P, R, F1, Acc in percent
    "LLaVA-1.5": {
        "original": ("88.63", "73.76", "80.48", "82.08"),
        "VCD": ("86.15", "83.78", "84.87", "84.98"),
        "M3ID": ("92.48", "75.22", "82.93", "82.93"),
        "DAMRO": ("88.84", "81.09", "84.72", "85.31"),
    },
    "LLaVA-NeXT": {
        "original": ("92.28", "75.58", "83.07", "84.57"),
        "VCD": ("91.90", "82.40", "86.86", "87.50"),
        "M3ID": ("94.23", "79.20", "86.05", "80.87"),
        "DAMRO": ("90.02", "85.40", "87.60", "87.87"),
    },
    "InstructBLIP": {
        "original": ("78.64", "79.42", "78.99", "78.85"),
        "VCD": ("84.88", "79.93", "81.96", "82.56"),
        "M3ID": ("90.59", "70.58", "79.33", "81.60"),
        "DAMRO": ("80.67", "83.89", "82.20", "81.77"),
    },
}
CHAIR = {  # C_S, C_I in percent: original, VCD, M3ID, DAMRO
    "LLaVA-1.5": (("12.4", "7.2"), ("7.6", "4.1"), ("9.2", "5.3"), ("6.0", "3.6")),
    "LLaVA-NeXT": (("4.2", "9.0"), ("3.0", "4.1"), ("4.2", "6.8"), ("3.0", "5.2")),
    "InstructBLIP": (("7.8", "5.2"), ("3.2", "1.9"), ("5.2", "3.7"), ("2.8", "1.7")),
}
CAPTIONS = 500
MME = {  # existence, count, position, colour: original, DAMRO; heights of bars, to about a point
    "LLaVA-1.5": ((185, 98, 115, 138), (180, 131, 128, 153)),
    "LLaVA-NeXT": ((165, 117, 103, 132), (190, 123, 140, 133)),
    "InstructBLIP": ((160, 75, 68, 103), (185, 65, 62, 115)),
}
GPT_4V = {  # accuracy, detail: original, DAMRO
    "LLaVA-1.5": ((5.356, 5.067), (6.611, 6.078)),
    "LLaVA-NeXT": ((6.456, 6.332), (7.189, 6.656)),
    "InstructBLIP": ((5.833, 5.400), (6.756, 5.967)),
}


def shares(row: tuple[str, ...]) -> list[Fraction]:
    """Printed percentages, exactly."""
    return [Fraction(one) / 100 for one in row]
