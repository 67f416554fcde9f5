"""All models by name: each package in this folder declares its ``MODEL``."""

import importlib
import pkgutil
from functools import cache

from kpdata.core.errors import KpdataError
from kpdata.train import models as rooms
from kpdata.train.models.base import ModelSpec, known_names


@cache
def models() -> dict[str, ModelSpec]:
    """Name → declaration, the default first; :func:`register` adds to it.

    Raises:
        KpdataError: a room declares no ``MODEL``.
    """
    specs = [_declared(room.name) for room in pkgutil.iter_modules(rooms.__path__) if room.ispkg]
    return {spec.name: spec for spec in sorted(specs, key=lambda spec: not spec.is_default)}


def _declared(room: str) -> ModelSpec:
    spec = getattr(importlib.import_module(f"{rooms.__name__}.{room}"), "MODEL", None)
    if not isinstance(spec, ModelSpec):
        raise KpdataError(
            f"train/models/{room}/__init__.py declares no model: each folder there defines "
            "MODEL = ModelSpec(...)"
        )
    return spec


def register(spec: ModelSpec) -> ModelSpec:
    """Add a model of your own, or replace one, in this process.

    A run of it can be read only where it is registered.
    """
    models()[spec.name] = spec
    return spec


def get_model(name: str) -> ModelSpec:
    """The declaration of a model.

    Raises:
        KpdataError: no such model; the message lists them.
    """
    if name not in models():
        raise KpdataError(f"model is {name}: no such model; {known_names(name, models())}")
    return models()[name]


def default_model() -> str:
    """The name of the default model."""
    return next(iter(models()))
