"""Stores of vectors, and vectors as plain files for other tools."""

from slq.index.export import FORMATS, file_format, load_embeddings, save_embeddings, save_vectors, search, truncated
from slq.index.store import Hit, Row, Store, StoreMetadata, open_store

__all__ = [
    "FORMATS",
    "Hit",
    "Row",
    "Store",
    "StoreMetadata",
    "file_format",
    "load_embeddings",
    "open_store",
    "save_embeddings",
    "save_vectors",
    "search",
    "truncated",
]
