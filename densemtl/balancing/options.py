"""Options of balancing rules, checked in one way."""

from __future__ import annotations

from densemtl.errors import ConfigError


def demand(holds: bool, option: str, value: object, wanted: str) -> None:
    """Check an option.

    Raises:
        ConfigError: it does not hold; says what is wanted instead of the value.
    """
    if not holds:
        raise ConfigError(f"balancing.{option}: {value} must be {wanted}")
