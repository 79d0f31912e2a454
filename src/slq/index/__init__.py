"""Stores of vectors, and vectors as plain files for other tools."""

from slq.index.export import FORMATS, load_embeddings, save_embeddings, search
from slq.index.store import Hit, Row, Store, StoreMetadata, open_store

__all__ = ["FORMATS", "Hit", "Row", "Store", "StoreMetadata", "load_embeddings", "open_store", "save_embeddings", "search"]
