"""Sets of queries that take knowledge to answer and never name their target, as in KARR-Bench."""
