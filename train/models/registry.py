"""All models by name: each room in this folder declares its ``MODEL``."""

import importlib
import pkgutil
from functools import cache

from kpdata.core.errors import KpdataError
from kpdata.train import models as rooms
from kpdata.train.models.base import ModelSpec, known_names


@cache
def models() -> dict[str, ModelSpec]:
    """Name → declaration, the default first; :func:`register` adds to it."""
    found: list[ModelSpec] = []
    for module in pkgutil.iter_modules(rooms.__path__):
        if module.ispkg:
            found.append(importlib.import_module(f"{rooms.__name__}.{module.name}").MODEL)
    return {spec.name: spec for spec in sorted(found, key=lambda spec: not spec.is_default)}


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
    """The name of the model that is taken where none is named."""
    return next(iter(models()))
