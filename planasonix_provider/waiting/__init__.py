"""Polling, cancellation and results: the code that operators, sensors and triggers share."""
