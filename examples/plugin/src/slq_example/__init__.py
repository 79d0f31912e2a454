"""One of everything that a distribution can add to slq; pyproject.toml says under which names."""
