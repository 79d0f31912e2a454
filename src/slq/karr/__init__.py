"""Building, checking, reviewing and exporting sets of knowledge-aware retrieval queries, as KARR-Bench has them."""
