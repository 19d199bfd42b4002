"""The few names of frameworks that our files import, for those that are not on the registry."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar

import pytest
from pydantic import BaseModel

Metadata = TypeVar("Metadata")


class EnvironmentReturn(NamedTuple):
    """NeMo-RL's."""

    observations: list
    metadata: list
    next_stop_strings: list
    rewards: Any
    terminateds: Any
    answers: list


class EnvironmentInterface(ABC, Generic[Metadata]):
    """NeMo-RL's."""

    @abstractmethod
    def step(self, message_log_batch, metadata): ...

    @abstractmethod
    def global_post_process_and_metrics(self, batch): ...


@dataclass
class VerifierConfig:
    """open-instruct's."""


@dataclass
class VerificationResult:
    """open-instruct's."""

    score: float
    cost: float = 0.0
    reasoning: str | None = None


class VerifierFunction(ABC):
    """open-instruct's; it makes one of each direct subclass."""

    def __init__(self, name, weight=1.0, verifier_config=None):
        self.name = name
        self.weight = weight
        self.verifier_config = verifier_config

    @classmethod
    def get_config_class(cls):
        return VerifierConfig

    @abstractmethod
    def __call__(self, tokenized_prediction, prediction, label, query=None, rollout_state=None): ...


def module(monkeypatch: pytest.MonkeyPatch, name: str, **names: Any) -> ModuleType:
    """Make a module, and the packages above it, importable for a test."""
    parts = name.split(".")
    for n in range(1, len(parts) + 1):
        path = ".".join(parts[:n])
        if path not in sys.modules:
            monkeypatch.setitem(sys.modules, path, ModuleType(path))
    found = sys.modules[name]
    for key, value in names.items():
        monkeypatch.setattr(found, key, value, raising=False)
    return found


class JudgeError(Exception):
    """NeMo Gym's."""


class BaseResourcesServerConfig(BaseModel):
    """NeMo Gym's."""

    name: str
    host: str
    port: int
    entrypoint: str
    domain: str


class BaseVerifyRequest(BaseModel):
    """NeMo Gym's, without its types of messages."""

    responses_create_params: dict[str, Any]
    response: dict[str, Any]


class BaseMultiRewardVerifyResponse(BaseVerifyRequest):
    """NeMo Gym's."""

    reward: float
    mask_sample: bool = False
    failure_kind: str | None = None
    failure_reason: str | None = None
    reward_components: dict[str, float]


class SimpleResourcesServer(BaseModel):
    """NeMo Gym's."""

    config: BaseResourcesServerConfig
    server_client: Any


# Version 0.7.0, nemo_gym/base_resources_server.py.
NEMO_GYM = {
    each.__name__: each
    for each in (
        BaseMultiRewardVerifyResponse,
        BaseResourcesServerConfig,
        BaseVerifyRequest,
        SimpleResourcesServer,
    )
}
