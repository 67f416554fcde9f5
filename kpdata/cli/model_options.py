"""Command options that the models declare; they are made when the command runs."""

from collections.abc import Callable, Sequence
from typing import Any

import click


class DeclaredCommand(click.Command):
    """A command with additional options, which the function ``declared`` returns."""

    def __init__(
        self, *args: Any, declared: Callable[[], Sequence[click.Option]], **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self._declared = declared

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options of the function, those declared, and --help."""
        own = super().get_params(ctx)
        return [*own[:-1], *self._declared(), *own[-1:]]


def training_options() -> list[click.Option]:
    """Make ``--model``, ``--stage``, and the options of all models."""
    from kpdata.train.models.registry import default_model, models

    specs = models().values()
    stages = dict.fromkeys(stage.name for spec in specs for stage in spec.stages)
    stages_by_model = "; ".join(
        f"{s.name}: {', '.join(stage.name for stage in s.stages)}" for s in specs
    )
    summaries = ". ".join(f"{spec.name}: {spec.summary}" for spec in specs)
    model = click.Option(
        ["--model"],
        type=click.Choice(list(models())),
        help=f"{summaries}. Default: {default_model()}.",
    )
    stage = click.Option(
        ["--stage"],
        type=click.Choice(list(stages)),
        help=f"Run only the phases that train this part. Default: all. {stages_by_model}.",
    )
    named: dict[str, list[Any]] = {}
    for spec in specs:
        for info in spec.option_infos:
            named.setdefault(info.name, []).append((spec.name, info))
    return [model, *(_option(name, owners) for name, owners in named.items()), stage]


def _option(name: str, owners: list[tuple[str, Any]]) -> click.Option:
    flag = name.replace("_", "-")
    infos = [info for _, info in owners]
    text = " ".join(f"{model}: {info.text} Default: {_shown(info)}." for model, info in owners)
    if all(info.kind is bool for info in infos):
        return click.Option([f"--{flag}/--no-{flag}"], default=None, help=text)
    choices = dict.fromkeys(choice for info in infos for choice in info.choices)
    if choices and all(info.choices for info in infos):
        return click.Option([f"--{flag}"], type=click.Choice(list(choices)), help=text)
    kinds = {info.kind for info in infos}
    kind = kinds.pop() if len(kinds) == 1 else str
    return click.Option([f"--{flag}"], type=kind, help=text)


def _shown(info: Any) -> str:
    return str(info.default).lower() if info.kind is bool else str(info.default)


def head_option() -> list[click.Option]:
    """Make ``--head`` of ``export``, with the heads of all models as choices."""
    from kpdata.train.models.registry import models

    heads = dict.fromkeys(head.name for spec in models().values() for head in spec.heads)
    return [
        click.Option(
            ["--head"],
            type=click.Choice(list(heads)),
            show_default="the run's own answer",
            help="Which of the model's heads to export. Coordinates need no heatmap, and less "
            "time.",
        )
    ]
