"""Options as dataclasses; imports no heavy library."""

from slq.config.collection import (
    CollectionCalibrateConfig,
    CollectionConfig,
    CollectionDeleteConfig,
    CollectionExportConfig,
    CollectionReportConfig,
    IndexConfig,
    IndexModelConfig,
)
from slq.config.evaluate import CompareConfig, DoctorConfig, EvalConfig, LeakageConfig, MiningConfig, RetentionConfig
from slq.config.facts import FactsConfig
from slq.config.fields import NamedOptions, from_values
from slq.config.files import Sources, dump_config, read_config
from slq.config.index import AskConfig, EmbedConfig, SearchConfig, SearchModelConfig
from slq.config.model import ModelConfig, PreprocessingConfig
from slq.config.tables import ReadingConfig
from slq.config.tools import (
    BenchmarksConfig,
    CacheClearConfig,
    CacheInfoConfig,
    CommonConfig,
    DemoConfig,
    ModelInfoConfig,
    ModelPushConfig,
    SampleDataConfig,
)
from slq.config.train import PRESETS, TrainConfig

__all__ = [
    "PRESETS",
    "AskConfig",
    "BenchmarksConfig",
    "CacheClearConfig",
    "CacheInfoConfig",
    "CollectionCalibrateConfig",
    "CollectionConfig",
    "CollectionDeleteConfig",
    "CollectionExportConfig",
    "CollectionReportConfig",
    "CommonConfig",
    "CompareConfig",
    "DemoConfig",
    "DoctorConfig",
    "EmbedConfig",
    "EvalConfig",
    "FactsConfig",
    "IndexConfig",
    "IndexModelConfig",
    "LeakageConfig",
    "MiningConfig",
    "ModelConfig",
    "ModelInfoConfig",
    "ModelPushConfig",
    "NamedOptions",
    "PreprocessingConfig",
    "ReadingConfig",
    "RetentionConfig",
    "SampleDataConfig",
    "SearchConfig",
    "SearchModelConfig",
    "Sources",
    "TrainConfig",
    "dump_config",
    "from_values",
    "read_config",
]
