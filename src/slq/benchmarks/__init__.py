"""Public benchmarks as retrieval sets, from local copies in their own layouts or from the hub, each by its exact protocol.

>>> from slq.benchmarks import BENCHMARKS
>>> BENCHMARKS["cirr"].headline
('hit@1', 'hit@5', 'hit@10', 'hit@50')
"""

from slq.benchmarks.base import Benchmark, BenchmarkData
from slq.benchmarks.catalogue import BENCHMARKS, load_benchmark

__all__ = ["BENCHMARKS", "Benchmark", "BenchmarkData", "load_benchmark"]
