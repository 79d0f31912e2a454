"""Public benchmarks as retrieval sets, from local copies in their own layouts or from the hub, each by its exact protocol.

>>> from slq.benchmarks import benchmarks
>>> benchmarks.get("cirr").info.headline
('hit@1', 'hit@5', 'hit@10', 'hit@50')
"""

from slq.benchmarks.base import Benchmark, BenchmarkData, BenchmarkInfo, benchmarks, load_benchmark
from slq.benchmarks.published import Published, published_rows

__all__ = ["Benchmark", "BenchmarkData", "BenchmarkInfo", "Published", "benchmarks", "load_benchmark", "published_rows"]
