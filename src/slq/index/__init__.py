"""Saved embeddings and exact search over them."""

from slq.index.exact import Hit, search
from slq.index.export import load_embeddings, save_embeddings

__all__ = ["Hit", "load_embeddings", "save_embeddings", "search"]
