"""Who we are: user and password, a bearer token, a shared secret. From code, the URL or the environment; never shown.

How a driver uses it::

    options = {..., **credentials.LOGIN}                       # or **credentials.TOKEN, **credentials.SECRET
    self.login = Login.of(target, options["credentials"], family="amqp")
    ...
    user, password = self.login.get() or (None, None)          # at each connect: what a callable says may change

    self.token = Secret.of(target, "token", options["token"], family="http")
    ...
    token = self.token.get()                                   # text, or None where none was given anywhere

In this order: the callable or text given in code; the URL (`amqp://ann:pw@mq/orders`, `grpc://h:1/orders?token=…`);
the environment: ``SIMLINK_<FAMILY>_USER``, ``_PASSWORD``, ``_TOKEN``, ``_SECRET``, where the family is the scheme
without its TLS or variant (AMQP for ``amqp`` and ``amqps``, KAFKA for ``kafka+python``). A user in the URL without a
password takes the password of the environment. Giving one thing both in code and in the URL is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from simlink.channels.url import Option, Target
from simlink.errors import ConfigError, ConnectError, TransportError

__all__ = ["LOGIN", "SECRET", "TOKEN", "Login", "Secret"]

LOGIN: Mapping[str, Option] = {
    "credentials": Option(
        object, None, "a function without arguments that returns (user, password), asked at each connect"
    ),
}
TOKEN: Mapping[str, Option] = {
    "token": Option(
        str, None, "a bearer token, or a function that returns one, asked at each connect", or_callable=True
    ),
}
SECRET: Mapping[str, Option] = {
    "secret": Option(
        str,
        None,
        "a secret that both sides know, or a function that returns it, asked at each connect",
        or_callable=True,
    ),
}


class Login:
    """User and password, looked up when they are needed. Its repr shows neither."""

    __slots__ = ("_ask", "_url", "given")

    def __init__(self, ask: Callable[[], tuple[str | None, str] | None], url: str, *, given: bool) -> None:
        self._ask = ask
        self._url = url
        self.given = given
        """Whether there are any."""

    def __repr__(self) -> str:
        return f"Login({'**' if self.given else 'none'})"

    @classmethod
    def of(cls, target: Target, credentials: object, *, family: str) -> Login:
        """For a URL and what the option ``credentials`` was given (None for nothing).

        Raises:
            ConfigError: given twice, not callable, or a user without any password.
        """
        url = str(target)
        if credentials is not None:
            if not callable(credentials):
                raise ConfigError(f"{url}: credentials= is a function that returns (user, password)")
            if target.user is not None:
                raise ConfigError(f"{url}: a user is given in the URL and by credentials=; give it once")
            return cls(_pair(credentials, url), url, given=True)
        names = f"SIMLINK_{family.upper()}_USER", f"SIMLINK_{family.upper()}_PASSWORD"
        user, password = (os.environ.get(name) or None for name in names)
        if target.user is not None:
            user = target.user or None
            password = target.password if target.password is not None else password
        if password is None:
            if user is not None:
                raise ConfigError(
                    f"{url}: the user {user!r} has no password: give one in the URL, in {names[1]} or by credentials="
                )
            return cls(lambda: None, url, given=False)
        pair = user, password
        return cls(lambda: pair, url, given=True)

    def get(self) -> tuple[str | None, str] | None:
        """``(user, password)``, the user None where only a password was given; None where there is neither.

        Raises:
            ConnectError: the function failed or returned something else; not retryable unless it raised a
                TransportError that is.
        """
        return self._ask()


class Secret:
    """A token or a shared secret, looked up when it is needed. Its repr does not show it."""

    __slots__ = ("_ask", "_source", "given", "name")

    def __init__(self, name: str, source: str | Callable[[], str] | None = None, *, url: str = "") -> None:
        self.name = name
        self._source = source
        self._ask: Callable[[], str | None] = _text(source, name, url) if callable(source) else lambda: source
        self.given = source is not None
        """Whether there is one."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self.name, self._source) == (other.name, other._source)

    def __hash__(self) -> int:
        return hash((self.name, self._source))

    def __repr__(self) -> str:
        return f"Secret({self.name!r}, {'**' if self.given else 'none'})"

    @classmethod
    def of(cls, target: Target, name: str, value: str | Callable[[], str] | None, *, family: str) -> Secret:
        """For the option ``name`` ("token" or "secret") and its checked value, None for nothing.

        Raises:
            ConfigError: it is empty.
        """
        url = str(target)
        if callable(value):
            return cls(name, value, url=url)
        variable = f"SIMLINK_{family.upper()}_{name.upper()}"
        text = value if value is not None else os.environ.get(variable) or None
        if text is not None and not text:
            raise ConfigError(f"{url}: {name}= is empty")
        return cls(name, text, url=url)

    def get(self) -> str | None:
        """The text; None where none was given.

        Raises:
            ConnectError: as `Login.get`.
        """
        return self._ask()


def _asked(function: Callable[[], Any], name: str, url: str) -> Any:
    try:
        return function()
    except TransportError:
        raise
    except Exception as error:
        # Its text is the user's own and may hold anything, so only its kind is told here.
        raise ConnectError(f"{url}: the function given as {name}= raised {type(error).__name__}", url=url) from error


def _pair(function: Callable[[], Any], url: str) -> Callable[[], tuple[str, str]]:
    def ask() -> tuple[str, str]:
        pair = _asked(function, "credentials", url)
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise ConnectError(f"{url}: the function given as credentials= did not return (user, password)", url=url)
        return pair

    return ask


def _text(function: Callable[[], Any], name: str, url: str) -> Callable[[], str]:
    def ask() -> str:
        text = _asked(function, name, url)
        if not (isinstance(text, str) and text):
            raise ConnectError(f"{url}: the function given as {name}= did not return a text", url=url)
        return text

    return ask
