"""Colours of the page can be told from what they stand on (WCAG 2.1: figures 3:1, text 4.5:1)."""

import re
from importlib.resources import files
from itertools import product

import pytest

CSS = (files("scaleinv_ray.report") / "board" / "page.css").read_text(encoding="utf-8")
GROUNDS = ("page", "card")
FIGURES = (*(f"size-{i}" for i in range(1, 6)), "trained", "random", "weights", "tokens", "fit")
TEXTS = ("ink", "muted", "accent")
BADGES = ("conserved", "scales", "not", "open", "learned")


def colours(theme: str) -> dict[str, str]:
    head = ":root" if theme == "light" else r':root\[data-theme="dark"\]'
    block = re.search(rf"^{head} \{{(.*?)\}}", CSS, re.S | re.M)
    assert block
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block[1]))


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_of_black_on_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_texts_and_badges_are_seen(theme: str) -> None:
    of = colours(theme)
    wanted = [(name, ground, 3.0) for name, ground in product(FIGURES, GROUNDS)]
    wanted += [(name, ground, 4.5) for name, ground in product(TEXTS, GROUNDS)]
    wanted += [(name, f"{name}-bg", 4.5) for name in BADGES]
    found = {(a, b): round(contrast(of[a], of[b]), 2) for a, b, _ in wanted}
    assert not {(a, b): found[a, b] for a, b, least in wanted if found[a, b] < least}
