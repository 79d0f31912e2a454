"""Ids of rows: printable, and of different inputs different."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from slq.index.ids import input_of, label_of, printable, row_id, unprintable

NAMES = (
    st.binary(max_size=12)
    | st.text("%4A1é\n/ ", max_size=12).map(str.encode)
    | st.lists(st.sampled_from([b"%", b"4", b"1", b"F", b"\xff", b"\n", "é".encode(), b"\xc3"]), max_size=8).map(b"".join)
)


@settings(max_examples=300, deadline=None)
@given(NAMES)
def test_every_name_comes_back(name):
    text = printable(name)
    assert text.isprintable() and unprintable(text) == name
    text.encode()


@settings(max_examples=200, deadline=None)
@given(NAMES.filter(bool), NAMES.map(lambda name: name.replace(b"/", b"")))
def test_an_id_names_one_input(name, source):
    label = label_of(source, ())
    assert "/" not in label and input_of(row_id(label, name)) == (label, name) and input_of(row_id(label, b"")) == (label, b"")


def test_names_that_people_give_stay_as_they_are():
    for name in ("2019/Strand am Meer.jpg", "100%.jpg", "50% off.png", "写真/猫.webp", "a%2f.jpg"):
        assert printable(name.encode()) == name


def test_labels_are_all_different():
    taken: list[str] = []
    for path in (b"/a/photos", b"/b/photos", b"/c/photos", b"/", b"/caf\xe9"):
        taken.append(label_of(path, taken))
    assert taken == ["photos", "photos-2", "photos-3", "root", "caf%E9"]
