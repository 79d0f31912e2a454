"""What is computed once and read again: records on disk, and on top of them the keys and values of items."""
