"""What was measured and how: the experiments, the pre-training of the miniature, the benchmarks, and their results. Not packaged."""
