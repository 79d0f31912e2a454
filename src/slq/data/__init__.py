"""Reading what users hand in: pictures, texts, tables, training pairs and retrieval sets.

One bad picture or line never stops a run: it becomes a `Failure` that says where it is and why, and reading goes on.
"""

from slq.data.items import ItemFile, read_items
from slq.data.pairs import PairFile, read_pairs, write_pairs
from slq.data.pictures import PICTURE_SUFFIXES, find_pictures, open_picture
from slq.data.retrieval import RetrievalSet, from_pairs, read_beir, write_beir
from slq.data.tables import read_rows
from slq.data.texts import check_text

__all__ = [
    "PICTURE_SUFFIXES",
    "ItemFile",
    "PairFile",
    "RetrievalSet",
    "check_text",
    "find_pictures",
    "from_pairs",
    "open_picture",
    "read_beir",
    "read_items",
    "read_pairs",
    "read_rows",
    "write_beir",
    "write_pairs",
]
