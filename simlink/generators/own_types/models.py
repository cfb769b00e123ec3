"""The fields of pydantic models."""

from __future__ import annotations

from typing import Any

from simlink.generators.own_types.fields_of import Overrides
from simlink.generators.own_types.limits import refuse

__all__ = ["members"]


def members(model: Any, path: str, overrides: Overrides) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """Name (as the model reads it), annotation and metadata of every field.

    A validator is code that may refuse any value. So a field with one must be the user's; a validator of the whole
    model is let pass where at least one of its fields is the user's, who has then looked at it.

    Raises:
        ConfigError: a validator or a ``model_post_init`` that nobody looked at, lengths of all texts together, a model
            without names, an alias that is a path.
    """
    import pydantic

    if issubclass(model, pydantic.RootModel):
        raise refuse(path, "a RootModel has no named fields")
    decorators = model.__pydantic_decorators__
    if (decorators.model_validators or decorators.root_validators) and not overrides.within(path):
        name = next(iter(decorators.model_validators or decorators.root_validators))
        raise refuse(path, f"the validator {name!r} may refuse any record: give at least one of the fields it looks at")
    if _begins(model) and not overrides.within(path):
        raise refuse(path, "its model_post_init may refuse any record: give at least one of the fields it looks at")
    lengths = [k for k in ("str_min_length", "str_max_length") if model.model_config.get(k)]
    if lengths and not overrides.within(path):
        raise refuse(path, f"{lengths[0]} of its model_config is not supported: say it of each field")
    checked = {
        field: name
        for name, decorator in {**decorators.field_validators, **decorators.validators}.items()
        for field in decorator.info.fields
    }
    out = []
    for name, info in model.model_fields.items():
        alias = info.validation_alias if info.validation_alias is not None else info.alias
        if alias is not None and not isinstance(alias, str):
            raise refuse(f"{path}.{name}", f"the alias {alias!r} is not a name")
        metadata = [*info.metadata]
        validator = checked.get(name) or checked.get("*")
        if validator:
            metadata.append(_Validator(validator))
        out.append((alias or name, info.annotation, tuple(metadata)))
    return out


def _begins(model: Any) -> bool:
    """Whether the user wrote a ``model_post_init``; pydantic has its own, for private attributes."""
    written = (base.__dict__.get("model_post_init") for base in model.__mro__)
    return any(f is not None and not str(getattr(f, "__module__", "")).startswith("pydantic") for f in written)


class _Validator:
    """Stands among a field's limits, as one that cannot be honoured."""

    def __init__(self, func: str) -> None:
        self.func = func


_Validator.__module__ = "pydantic"
