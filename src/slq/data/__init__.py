"""Reading what users hand in: images, texts, tables, training pairs and retrieval sets.

One bad image or line never stops a run: it becomes a `Failure` that says where it is and why, and reading goes on.
"""

from slq.data.beir import read_beir, read_retrieval_data, write_beir
from slq.data.images import IMAGE_SUFFIXES, find_images, open_image
from slq.data.items import ItemFile, as_item, read_items, unique
from slq.data.matches import Matches, match_key
from slq.data.pairs import PairFile, read_pairs, write_pairs
from slq.data.retrieval import RetrievalSet, from_pairs
from slq.data.roots import ImageRoot
from slq.data.tables import read_rows
from slq.data.texts import check_text

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageRoot",
    "ItemFile",
    "Matches",
    "PairFile",
    "RetrievalSet",
    "as_item",
    "check_text",
    "find_images",
    "from_pairs",
    "match_key",
    "open_image",
    "read_beir",
    "read_items",
    "read_pairs",
    "read_retrieval_data",
    "read_rows",
    "unique",
    "write_beir",
    "write_pairs",
]
