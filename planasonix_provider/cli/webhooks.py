"""The commands about webhook subscriptions. A signing secret goes where it is to be kept, and is never shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from planasonix_provider.api.errors import PlanasonixLostTrackError
from planasonix_provider.api.validation import timestamp
from planasonix_provider.cli import argument_types
from planasonix_provider.cli.exit_codes import REFUSED
from planasonix_provider.cli.jobs import listed, plain
from planasonix_provider.cli.output import CommandResult
from planasonix_provider.cli.runner import CommandContext
from planasonix_provider.cli.signals import Interrupted
from planasonix_provider.cli.usage import UsageError
from planasonix_provider.webhook_secrets import SecretStore, create_webhook, rotate_secret, secret_store


def list_all(stage: CommandContext) -> CommandResult:
    """List the subscriptions."""
    found = stage.hook.list_webhooks(limit=argument_types.how_many("--limit", stage.options.limit))
    return listed(stage, found, "id", "enabled", "url", "events", "created_at")


def create(stage: CommandContext) -> CommandResult:
    """Subscribe a URL to events, and have the secret kept."""
    options = stage.options
    place = _place(stage)
    events = argument_types.words(options.events) or []
    secret = argument_types.secret("--secret-from", options.secret_from)
    with _not_to_be_lost(stage, f"webhook for {options.url} was created", "webhooks", "list"):
        created = create_webhook(
            stage.hook, options.url, events=events, to=place, secret=secret, sleep=stage.rest.sleep
        )
    stage.screen.say(f"The signing secret of webhook {created.id} is in {place.description}.")
    return CommandResult(plain(created))


def get(stage: CommandContext) -> CommandResult:
    """Show a subscription."""
    return CommandResult(plain(stage.hook.get_webhook(stage.options.webhook_id)))


def update(stage: CommandContext) -> CommandResult:
    """Change a subscription."""
    options = stage.options
    events = argument_types.words(options.events)
    if options.url is None and events is None and options.enabled is None:
        raise UsageError("There is nothing to change: give --url, --events, --enabled or --no-enabled.")
    changed = stage.hook.update_webhook(options.webhook_id, url=options.url, events=events, enabled=options.enabled)
    return CommandResult(plain(changed))


def delete(stage: CommandContext) -> CommandResult:
    """Delete a subscription, once that is sure to be meant."""
    webhook_id = stage.options.webhook_id
    if not stage.options.yes:
        if not stage.screen.can_ask:
            raise UsageError(
                f"Webhook {webhook_id} was not deleted: there is no terminal to ask on. With --yes nobody is asked."
            )
        if not stage.screen.ask(f"Delete webhook {webhook_id}, with its history of deliveries? [y/N]"):
            return CommandResult(code=REFUSED, complaint=f"Webhook {webhook_id} was not deleted.")
    stage.hook.delete_webhook(webhook_id)
    stage.screen.say(f"Deleted webhook {webhook_id}.")
    return CommandResult()


def rotate(stage: CommandContext) -> CommandResult:
    """Get a new signing secret, and have it kept."""
    webhook_id, place = stage.options.webhook_id, _place(stage)
    with _not_to_be_lost(stage, f"secret of webhook {webhook_id} was changed", "webhooks", "get", webhook_id):
        rotation = rotate_secret(stage.hook, webhook_id, to=place, sleep=stage.rest.sleep)
    stage.screen.say(f"The new signing secret of webhook {webhook_id} is in {place.description}.")
    return CommandResult({"id": rotation.webhook_id, "rotated_at": timestamp(rotation.rotated_at)})


def send_test(stage: CommandContext) -> CommandResult:
    """Send a test event."""
    return CommandResult(plain(stage.hook.test_webhook(stage.options.webhook_id, event=stage.options.event)))


def deliveries(stage: CommandContext) -> CommandResult:
    """List what was sent to a subscription."""
    found = stage.hook.list_webhook_deliveries(
        stage.options.webhook_id, limit=argument_types.how_many("--limit", stage.options.limit)
    )
    return listed(stage, found, "id", "event", "status", "http_status", "attempt", "delivered_at", "last_error")


def _place(stage: CommandContext) -> SecretStore:
    try:
        return secret_store(stage.options.secret_to)
    except ValueError:
        # What was given is not shown: it may be the secret itself.
        raise UsageError("--secret-to: allowed is variable:NAME, connection:CONN_ID or file:/absolute/path.") from None


@contextmanager
def _not_to_be_lost(stage: CommandContext, done: str, *look: str) -> Iterator[None]:
    """Let Ctrl-C wait until the secret is kept, for it is shown once; then everything is done that was asked for."""
    try:
        with stage.interrupts.deferred("the secret is kept", whole=True):
            yield
    except Interrupted as interrupt:
        if not interrupt.amid:
            raise
        raise PlanasonixLostTrackError(
            f"Interrupted. Nobody knows whether the {done}; if it was, its secret may be lost. Look with "
            f"{stage.hint(*look)}, and rotate the secret."
        ) from None
