"""An alphabet of strokes, so that words can be rendered without any font on the machine."""

from __future__ import annotations

# Each letter is a list of strokes over a grid 4 wide and 6 high; a stroke is a string of x,y digit pairs.
STROKES = {
    "a": ["06 20 46", "14 34"],
    "b": ["00 06 36 45 44 33 03", "00 30 41 42 33"],
    "c": ["41 30 10 01 05 16 36 45"],
    "d": ["00 06 26 44 42 20 00"],
    "e": ["40 00 06 46", "03 33"],
    "f": ["40 00 06", "03 33"],
    "g": ["41 30 10 01 05 16 36 45 43 23"],
    "h": ["00 06", "40 46", "03 43"],
    "i": ["20 26", "10 30", "16 36"],
    "j": ["20 40", "30 35 26 16 05"],
    "k": ["00 06", "40 03 46"],
    "l": ["00 06 46"],
    "m": ["06 00 23 40 46"],
    "n": ["06 00 46 40"],
    "o": ["10 30 41 45 36 16 05 01 10"],
    "p": ["06 00 30 41 42 33 03"],
    "q": ["10 30 41 45 36 16 05 01 10", "24 46"],
    "r": ["06 00 30 41 42 33 03", "23 46"],
    "s": ["41 30 10 01 02 13 33 44 45 36 16 05"],
    "t": ["00 40", "20 26"],
    "u": ["00 05 16 36 45 40"],
    "v": ["00 26 40"],
    "w": ["00 16 23 36 40"],
    "x": ["00 46", "40 06"],
    "y": ["00 23 40", "23 26"],
    "z": ["00 40 06 46"],
}

# What signs can say.
WORDS = (
    "bank bath boat book cafe cash coat cold dance east exit farm fire fish food free game gate gift gold hall help "
    "hotel inn jump keep lake lost mail menu milk music news north open park play pool post pull push quiet rest road "
    "rooms sale school shop show shut slow south stop taxi tea toys turn up wait walk west wood work yard zoo"
).split()


BOARD_WIDTH, BOARD_HEIGHT = 96, 56


def draw_word(word: str, height: float = BOARD_HEIGHT, colour: str = "#222222") -> str:
    """A word on a board, as an SVG fragment in a 100 x 100 box.

    Args:
        word: letters a to z.
        height: of the board, which is 96 wide; the word is as large as fits.
        colour: of the letters.

    Returns:
        SVG elements without a root.

    Raises:
        KeyError: for anything but the letters a to z.
    """
    advance = 5.4
    scale = min((BOARD_WIDTH - 12) / (advance * len(word) - 1.4), (height - 15) / 6, 6.5)
    left = 50 - scale * (advance * len(word) - 1.4) / 2
    top = 50 - scale * 3
    lines = []
    for place, letter in enumerate(word):
        for stroke in STROKES[letter]:
            points = " ".join(
                f"{left + scale * (advance * place + int(point[0])):.1f},{top + scale * int(point[1]):.1f}" for point in stroke.split()
            )
            lines.append(f'<polyline points="{points}"/>')
    return (
        f'<rect x="2" y="{50 - height / 2:.1f}" width="{BOARD_WIDTH}" height="{height:.1f}" rx="6" fill="#ffffff" stroke="#555555" '
        f'stroke-width="3"/><g fill="none" stroke="{colour}" stroke-width="{max(3.0, scale * 0.8):.1f}" stroke-linecap="round" '
        f'stroke-linejoin="round">{"".join(lines)}</g>'
    )
