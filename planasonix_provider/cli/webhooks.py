"""The commands for webhooks. A signing secret goes to its store and is never shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from planasonix_provider.api.errors import PlanasonixLostTrackError
from planasonix_provider.cli import argument_types
from planasonix_provider.cli.argument_types import UsageError
from planasonix_provider.cli.exit_codes import EXIT_ERROR
from planasonix_provider.cli.jobs import list_result, to_json
from planasonix_provider.cli.output import CommandResult
from planasonix_provider.cli.runner import CommandContext
from planasonix_provider.cli.signals import Interrupted
from planasonix_provider.validators import format_utc
from planasonix_provider.webhook_secrets import SecretStore, create_webhook, rotate_secret, secret_store


def list_all(context: CommandContext) -> CommandResult:
    """List webhooks."""
    found = context.hook.list_webhooks(limit=argument_types.limit("--limit", context.options.limit))
    return list_result(context, found, "id", "enabled", "url", "events", "created_at")


def create(context: CommandContext) -> CommandResult:
    """Create a webhook and store its secret."""
    options = context.options
    place = _secret_store(context)
    events = argument_types.split_list(options.events) or []
    secret = argument_types.secret("--secret-from", options.secret_from)
    with _protect_secret(context, f"webhook for {options.url} was created", "webhooks", "list"):
        created = create_webhook(
            context.hook, options.url, events=events, to=place, secret=secret, sleep=context.sleeper.sleep
        )
    context.terminal.print(f"The signing secret of webhook {created.id} is in {place.description}.")
    return CommandResult(to_json(created))


def get(context: CommandContext) -> CommandResult:
    """Show a webhook."""
    return CommandResult(to_json(context.hook.get_webhook(context.options.webhook_id)))


def update(context: CommandContext) -> CommandResult:
    """Change a webhook."""
    options = context.options
    events = argument_types.split_list(options.events)
    if options.url is None and events is None and options.enabled is None:
        raise UsageError("There is nothing to change: add --url, --events, --enabled or --no-enabled.")
    changed = context.hook.update_webhook(options.webhook_id, url=options.url, events=events, enabled=options.enabled)
    return CommandResult(to_json(changed))


def delete(context: CommandContext) -> CommandResult:
    """Delete a webhook after a confirmation."""
    webhook_id = context.options.webhook_id
    if not context.options.yes:
        if not context.terminal.can_confirm:
            raise UsageError(
                f"Webhook {webhook_id} was not deleted: there is no terminal for the confirmation. --yes skips it."
            )
        if not context.terminal.confirm(f"Delete webhook {webhook_id}, with its history of deliveries? [y/N]"):
            return CommandResult(code=EXIT_ERROR, error=f"Webhook {webhook_id} was not deleted.")
    context.hook.delete_webhook(webhook_id)
    context.terminal.print(f"Deleted webhook {webhook_id}.")
    return CommandResult()


def rotate(context: CommandContext) -> CommandResult:
    """Replace the signing secret and store the new one."""
    webhook_id, place = context.options.webhook_id, _secret_store(context)
    with _protect_secret(context, f"secret of webhook {webhook_id} was changed", "webhooks", "get", webhook_id):
        rotation = rotate_secret(context.hook, webhook_id, to=place, sleep=context.sleeper.sleep)
    context.terminal.print(f"The new signing secret of webhook {webhook_id} is in {place.description}.")
    rotated_at = rotation.rotated_at and format_utc(rotation.rotated_at)
    return CommandResult({"id": rotation.webhook_id, "rotated_at": rotated_at})


def send_test(context: CommandContext) -> CommandResult:
    """Send a test event."""
    return CommandResult(to_json(context.hook.test_webhook(context.options.webhook_id, event=context.options.event)))


def deliveries(context: CommandContext) -> CommandResult:
    """List the deliveries of a webhook."""
    found = context.hook.list_webhook_deliveries(
        context.options.webhook_id, limit=argument_types.limit("--limit", context.options.limit)
    )
    return list_result(context, found, "id", "event", "status", "http_status", "attempt", "delivered_at", "last_error")


def _secret_store(context: CommandContext) -> SecretStore:
    try:
        return secret_store(context.options.secret_to)
    except ValueError:
        # The value is not shown, because it may be the secret itself.
        raise UsageError("--secret-to: allowed is variable:NAME, connection:CONN_ID or file:/absolute/path.") from None


@contextmanager
def _protect_secret(context: CommandContext, done: str, *look: str) -> Iterator[None]:
    """Defer Ctrl-C until the secret is stored, because Planasonix shows it only once."""
    try:
        with context.signals.deferred("the secret is stored", uninterruptible=True):
            yield
    except Interrupted as interrupt:
        if not interrupt.in_flight:
            raise
        raise PlanasonixLostTrackError(
            f"Interrupted. It is unknown whether the {done}; if it was, its secret may be lost. Check with "
            f"{context.hint(*look)}, and rotate the secret."
        ) from None
