"""Values from Faker: drawn once into a pool, or exactly one a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from simlink.block import Coded, Column, FieldType, Kind, Pool
from simlink.errors import ConfigError, MissingExtra, did_you_mean
from simlink.generators.field import Bound, Context, Field, Scope, infer, object_array, plain
from simlink.generators.fields.draws import scaled
from simlink.generators.seeding import derive_seed

__all__ = ["faker"]


def faker(provider: str, *args: Any, pool: int | None = 1000, locale: str | None = None, **options: Any) -> Field:
    """Values of a Faker provider, as ``faker("name")`` or ``faker("uri", pool=2_000)``. Needs the extra ``faker``.

    Faker makes some ten thousand values a second. So ``pool`` of them are drawn once, by an instance seeded with
    (seed, path), and each row takes one of these. ``pool=None`` asks Faker for every row instead, by an instance seeded
    with (seed, path, block): exact, and slow.

    The same seed gives the same values with the same version of Faker only: its lists change between patch versions.
    Providers that start from today (``date_this_year``, ``past_datetime``) change with the day.

    Args:
        provider: a method of a Faker instance.
        *args: for that method.
        **options: for that method.
        pool: how many values to draw, from 1 to 1,000,000, or None.
        locale: as ``"fr_FR"``; Faker's default is en_US.

    Raises:
        MissingExtra: Faker is not installed.
        ConfigError: no such provider or locale, an option that it does not take, a value that has no plain form, or a
            bad pool size.
    """
    return _Faker(provider, args, options, pool, locale)


class _Faker(Field):
    def __init__(
        self, provider: str, args: tuple[Any, ...], options: dict[str, Any], pool: int | None, locale: str | None
    ) -> None:
        if pool is not None and (isinstance(pool, bool) or not isinstance(pool, int) or not 1 <= pool <= 1_000_000):
            raise ConfigError(f"faker: pool is an integer from 1 to 1,000,000, or None, not {pool!r}")
        self.provider, self.args, self.options, self.pool, self.locale = provider, args, options, pool, locale
        fake = self._instance(0)
        known = [name for name in dir(fake) if not name.startswith(("_", "seed", "add_", "get_", "set_"))]
        if provider not in known:
            raise ConfigError(f"faker: no provider {provider!r}{did_you_mean(str(provider), known)}")
        self._draw(fake, 1)  # its arguments are wrong now, or never

    def _instance(self, seed: int) -> Any:
        try:
            import faker
        except ImportError as error:
            raise MissingExtra("fields.faker", "faker", package="Faker") from error
        try:
            fake = faker.Faker(self.locale)
        except (AttributeError, ValueError) as error:
            raise ConfigError(f"faker: no locale {self.locale!r}: {error}") from error
        fake.seed_instance(seed)
        return fake

    def _draw(self, fake: Any, count: int) -> list[Any]:
        method = getattr(fake, self.provider)
        try:
            return [plain(method(*self.args, **self.options)) for _ in range(count)]
        except TypeError as error:
            raise ConfigError(f"faker: {self.provider} does not take these arguments: {error}") from error

    def bind(self, scope: Scope) -> Bound:
        if self.pool is None:
            return self._exact(scope)
        size, path = self.pool, scope.path
        values = Pool(self._draw(self._instance(derive_seed(scope.seed, path)), size))

        def make(context: Context) -> Column:
            return Coded(scaled(context.words(path), size).view(np.int64), values)

        return Bound(infer(values.values), make)

    def _exact(self, scope: Scope) -> Bound:
        if not scope.counts:
            raise ConfigError(f"{scope.path}: faker(pool=None) draws a row, not an entity: give a pool")

        def make(context: Context) -> Column:
            fake = self._instance(derive_seed(scope.seed, scope.path, context.block))
            return object_array(self._draw(fake, context.length))

        # What a provider returns is known only once it has; .returns(str) declares it.
        return Bound(FieldType(Kind.ANY, optional=True), make)
