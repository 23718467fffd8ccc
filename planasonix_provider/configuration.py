"""The section ``[planasonix]`` of Airflow's configuration. Reading an option takes some microseconds."""

from __future__ import annotations

import math
from typing import Any

from airflow.providers.common.compat.sdk import conf

from planasonix_provider import validators
from planasonix_provider.get_provider_info import CONFIG

SECTION = "planasonix"
#: In seconds.
MIN_OUTAGE_PATIENCE, MAX_OUTAGE_PATIENCE = 60, 604_800
MIN_FIRST_CONTACT_PATIENCE, MAX_FIRST_CONTACT_PATIENCE = 1, 3_600
MAX_POLL_SECONDS = 86_400


def outage_patience() -> float:
    """Return for how many seconds a task tolerates that Planasonix cannot be reached."""
    return _seconds("outage_patience", MIN_OUTAGE_PATIENCE, MAX_OUTAGE_PATIENCE)


def first_contact_patience() -> float:
    """Return for how many seconds a task tries a host that has never answered."""
    return _seconds("first_contact_patience", MIN_FIRST_CONTACT_PATIENCE, MAX_FIRST_CONTACT_PATIENCE)


def poll_interval() -> float:
    """Return the seconds between two polls of a task that does not set them."""
    return _seconds("poll_interval", validators.MIN_POLL_SECONDS, MAX_POLL_SECONDS)


def cancel_on_kill() -> bool:
    """Return whether a task that does not say so cancels its work when it is killed."""
    given = _value("cancel_on_kill")
    # The spellings that Airflow allows for its own options.
    truths = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
    if (truth := truths.get(given.partition("#")[0].strip().lower())) is None:
        raise _invalid_option("cancel_on_kill", given, "True or False")
    return truth


def _seconds(option: str, lowest: float, highest: float) -> float:
    given = _value(option)
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not lowest <= number <= highest:
        raise _invalid_option(option, given, f"a number of seconds from {lowest:g} to {highest:,}")
    return number


def _value(option: str) -> str:
    # The fallback is for processes in which Airflow has not read the configuration of its providers.
    return str(conf.get(SECTION, option, fallback=CONFIG[SECTION]["options"][option]["default"])).strip()


def _invalid_option(option: str, given: Any, allowed: str) -> ValueError:
    return validators.invalid_parameter(f"[{SECTION}] {option} in Airflow's configuration", given, allowed)
