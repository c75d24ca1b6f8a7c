"""The deployment: which models are served, and what callers may ask of them. One YAML, checked when it is loaded.

models:
  - config: qwen2.5-vl-7b.yaml     # beside this file
    replicas: {min: 1, max: 8}
    idle_timeout_s: 600
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lsi_ray.config import Config, Replicas, default_config_path, load_config
from lsi_ray.errors import ConfigError, StorageError
from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.storage.guard import UrlPolicy
from lsi_ray.storage.location import Location


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Section):
    config: Path
    """A model's config, as `lsi run --config` takes it; relative to the deployment's file."""
    replicas: Replicas | None = None
    """Instead of the config's."""
    idle_timeout_s: float = Field(default=600.0, ge=0)
    """How long engines stay loaded without a row to answer; then they go, and their GPUs with them."""
    keep_warm: bool = False
    """Load at once and never let go."""
    display_name: str | None = None
    size: str | None = None


class AdmissionSettings(_Section):
    refuse: bool = True
    """Refuse a batch that cannot be done within its window at the measured speed; else it runs at risk."""
    safety: float = Field(default=1.25, ge=1)
    """Estimated times are taken this much longer."""
    max_batches_per_caller: int = Field(default=1000, ge=1)
    """That are not terminal."""
    max_rows_per_caller: int = Field(default=50_000_000, ge=1)
    """To be answered, of all batches that are not terminal; what exceeds it is refused when it has been validated."""
    max_file_bytes_per_caller: int = Field(default=1_000_000_000_000, ge=1)
    """Of files of the Files API that are kept."""


class Keeping(_Section):
    results_s: float = Field(default=7 * 86400.0, ge=0)
    """How long results wait for an output URL that works; then the batch fails and they are erased."""
    files_s: float = Field(default=30 * 86400.0, ge=60)
    """How long files of the Files API live that say nothing else."""
    webhook_tries_s: float = Field(default=3 * 86400.0, ge=0)
    retry_s: float = Field(default=86400.0, ge=0)
    """How long the URLs of a batch that has ended are kept for a retry; nothing else of it is. 0: not at all."""


class GpuSettings(_Section):
    """What Ray does not tell of a cluster that grows: its open autoscalers keep to themselves how far they go. Without
    `most` the GPUs that are there, or the least that a first stream needs, are all there ever are."""

    most: int | None = Field(default=None, ge=0)
    """That may ever be there: of all node types' `max_workers` together. Never ask for more."""
    paid: int | None = Field(default=None, ge=0)
    """So many are there whether used or not (reserved, the least workers of the cluster file): what has work uses them
    without a deadline's need. Default: none where the cluster grows, else all."""
    node_start_s: float = Field(default=240.0, ge=0)
    """Until a node that is asked for can start an engine."""


class Deploy(_Section):
    models: tuple[ModelSettings, ...] = Field(min_length=1)
    api: ApiSettings = ApiSettings()
    admission: AdmissionSettings = AdmissionSettings()
    keep: Keeping = Keeping()
    gpus: GpuSettings = GpuSettings()
    intakes: int = Field(default=3, ge=1)
    """Batches fetched and validated at once, in processes of their own; one caller's take all but one at most."""
    deliveries: int = Field(default=3, ge=1)
    max_retries: int = Field(default=2, ge=0)
    """Of one batch, as LSI has it."""
    cancel_delivery_s: float = Field(default=45.0, ge=1)
    """A cancelled batch delivers what it has for this long, then it ends without."""
    engine_tries: int = Field(default=8, ge=1)
    """Streams of a model that end without an answer, one after another with growing waits (8 of them: about 10 minutes
    and their starts), before its batches without an answer fail with the reason."""
    api_replicas: int = Field(default=1, ge=1)


@dataclass(frozen=True, slots=True)
class Served:
    """One model of the deployment."""

    config: Config
    settings: ModelSettings


@dataclass(frozen=True, slots=True)
class Deployment:
    """The settings with the models' configs loaded. Holds no secret; travels to every process."""

    settings: Deploy
    models: dict[str, Served]
    paths: bool = False
    """Whether a caller's URL may be a path or s3://, with the rights of the service: in tests only."""

    def config(self, model: str) -> Config:
        return self.models[model].config

    @property
    def urls(self) -> UrlPolicy:
        return self.settings.api.url_policy

    def check_kind(self, location: Location) -> None:
        """A path or an s3:// URL of a caller's would be opened with the rights of the service."""
        if location.kind != "http" and not self.paths:
            raise StorageError("destination_not_allowed", f"{location}: destination not allowed (not https)")


def load_deployment(path: Path | None) -> Deployment:
    """None: the embedded model and nothing else. Raises ConfigError naming the file and the field."""
    if path is None:
        return deployment(Deploy(models=(ModelSettings(config=default_config_path()),)), Path.cwd(), "default")
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no such deployment: {path}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    return deployment(parse_deploy(data, source=str(path)), path.absolute().parent, str(path))


def parse_deploy(data: Any, *, source: str) -> Deploy:
    try:
        return Deploy.model_validate(data)
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from None


def deployment(settings: Deploy, folder: Path, source: str) -> Deployment:
    models: dict[str, Served] = {}
    for entry in settings.models:
        config = load_config(folder / entry.config)
        if entry.replicas is not None:
            config = config.model_copy(update={"replicas": entry.replicas})
        if config.model in models:
            raise ConfigError(f"{source}: two configs serve the model {config.model}")
        models[config.model] = Served(config, entry)
    return Deployment(settings, models)
