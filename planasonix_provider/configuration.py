"""Reads the section ``[planasonix]`` of Airflow's configuration. An option takes some microseconds."""

from __future__ import annotations

import math

from airflow.providers.common.compat.sdk import conf

from planasonix_provider import validators
from planasonix_provider.get_provider_info import CONFIG

SECTION = "planasonix"
MIN_OUTAGE_PATIENCE_SECONDS, MAX_OUTAGE_PATIENCE_SECONDS = 60, 604_800
MIN_FIRST_CONTACT_PATIENCE_SECONDS, MAX_FIRST_CONTACT_PATIENCE_SECONDS = 1, 3_600
MAX_POLL_SECONDS = 86_400


def outage_patience() -> float:
    """Return for how many seconds a task tolerates an outage of Planasonix."""
    return _seconds("outage_patience", MIN_OUTAGE_PATIENCE_SECONDS, MAX_OUTAGE_PATIENCE_SECONDS)


def first_contact_patience() -> float:
    """Return for how many seconds a task tries a host that has never responded."""
    return _seconds("first_contact_patience", MIN_FIRST_CONTACT_PATIENCE_SECONDS, MAX_FIRST_CONTACT_PATIENCE_SECONDS)


def poll_interval() -> float:
    """Return the default number of seconds between two polls."""
    return _seconds("poll_interval", validators.MIN_POLL_SECONDS, MAX_POLL_SECONDS)


def cancel_on_kill() -> bool:
    """Return whether a task cancels its work by default when it is killed."""
    value = _value("cancel_on_kill")
    # The spellings that Airflow accepts for its own options.
    booleans = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
    if (boolean := booleans.get(value.partition("#")[0].strip().lower())) is None:
        raise _invalid_option("cancel_on_kill", value, "True or False")
    return boolean


def _seconds(option: str, minimum: float, maximum: float) -> float:
    value = _value(option)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not minimum <= number <= maximum:
        raise _invalid_option(option, value, f"a number of seconds from {minimum:g} to {maximum:,}")
    return number


def _value(option: str) -> str:
    # Some processes of Airflow do not load the configuration of providers, hence the fallback.
    return str(conf.get(SECTION, option, fallback=CONFIG[SECTION]["options"][option]["default"])).strip()


def _invalid_option(option: str, value: str, allowed: str) -> ValueError:
    return validators.invalid_parameter(f"[{SECTION}] {option} in Airflow's configuration", value, allowed)
