"""Who visits the site of `access_log`: addresses and user agents of browsers, feed readers, crawlers and scanners."""

from __future__ import annotations

from typing import Final

import numpy as np

__all__ = ["AGENTS", "WHO", "addresses", "agent_weights", "populations"]

WHO: Final = np.array([0, 0, 0, 0, 0, 0, 1, 2, 2, 3])
"""By kind of file: 0 a browser, 1 a feed reader, 2 a crawler, 3 a scanner."""

_READERS, _CRAWLERS, _SCANNERS = 120, 60, 200


def populations(visitors: int) -> list[tuple[int, float]]:
    """How many there are of each, and the exponent of Zipf's law by which they come."""
    return [(visitors, 0.35), (_READERS, 1.4), (_CRAWLERS, 1.4), (_SCANNERS, 0.5)]


def addresses(visitors: int) -> list[str]:
    """One each. Browsers are in 198.18.0.0/15, which is set aside for benchmarks (RFC 2544), the others in the three
    networks for documentation (RFC 5737)."""
    return [
        *(f"198.{18 + i // 64_000}.{i // 250 % 256}.{i % 250 + 1}" for i in range(visitors)),
        *(f"198.51.100.{i + 1}" for i in range(_READERS)),
        *(f"192.0.2.{i + 1}" for i in range(_CRAWLERS)),
        *(f"203.0.113.{i + 1}" for i in range(_SCANNERS)),
    ]


_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_BY_WHO: tuple[dict[str, float], ...] = (
    {
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/126.0.0.0 Safari/537.36": 30,
        f"Mozilla/5.0 (Linux; Android 14; K) {_WEBKIT} Chrome/126.0.0.0 Mobile Safari/537.36": 24,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
        "Mobile/15E148 Safari/604.1": 18,
        f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_WEBKIT} Chrome/126.0.0.0 Safari/537.36": 12,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0": 8,
        "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0": 6,
        "-": 2,
    },
    {
        "FeedFetcher/2.0 (+https://feeds.example/fetcher)": 4,
        "RiverReader/1.11 (https://river.example/)": 3,
        "PlanetFeedParser/6.0.11": 3,
        "-": 1,
    },
    {
        "Mozilla/5.0 (compatible; Searchbot/2.1; +https://search.example/bot.html)": 5,
        "Mozilla/5.0 (compatible; Archivebot/1.0; +https://archive.example/bot)": 2,
        "Mozilla/5.0 (compatible; Linkbot/7.0; +https://links.example/bot)": 2,
        "curl/8.5.0": 1,
    },
    {"Mozilla/5.0 zgrab/0.x": 4, "python-requests/2.32.3": 3, "Go-http-client/1.1": 2, "-": 2},
)

AGENTS: Final = [agent for agents in _BY_WHO for agent in agents]


def agent_weights() -> list[list[float]]:
    """By who it is: how many have which of `AGENTS`."""
    return [[agents.get(agent, 0.0) for agent in AGENTS] for agents in _BY_WHO]
