"""Draw docs/images/architecture.svg: the packages by import rank, and the way of one item through them.

    python docs/architecture_map.py

The ranks are those of the architecture test, so that the picture cannot say anything else.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "docs" / "images" / "architecture.svg"
# One item from file to search result: the numbers of docs/architecture.md.
STEPS = {"data": "1", "types": "2", "models": "3 5", "cache": "4", "pooling": "6", "encoders": "7", "index": "8", "cli": "9"}
WIDTH, ROW, LEFT, GAP = 980, 58, 120, 10


def layers() -> tuple[tuple[str, ...], ...]:
    """The packages of each rank, from rank 0."""
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "tests" / "lint" / "test_architecture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LAYERS


def draw(ranks: tuple[tuple[str, ...], ...]) -> str:
    """The picture as SVG, the highest rank on top."""
    height = ROW * len(ranks) + 56
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="15">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="26" fill="#444444">An import goes to a lower rank, or stays in its package. '
        "Numbers: one item from file to search result.</text>",
    ]
    for rank, names in enumerate(ranks):
        top = 40 + ROW * (len(ranks) - 1 - rank)
        parts.append(f'<text x="16" y="{top + 29}" fill="#777777">rank {rank}</text>')
        width = (WIDTH - LEFT - 16 - GAP * (len(names) - 1)) / len(names)
        for place, name in enumerate(names):
            left = LEFT + place * (width + GAP)
            step = STEPS.get(name)
            fill, rim = ("#e3eef8", "#24608c") if step else ("#f4f2ec", "#b9b4a6")
            parts.append(f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 12}" rx="6" fill="{fill}" stroke="{rim}"/>')
            parts.append(f'<text x="{left + width / 2:.1f}" y="{top + 29}" text-anchor="middle" fill="#1f2226">{name}</text>')
            if step:
                parts.append(
                    f'<text x="{left + width - 8:.1f}" y="{top + 17}" text-anchor="end" font-size="12" fill="#24608c">{step}</text>'
                )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    IMAGE.write_text(draw(layers()), encoding="utf-8")
