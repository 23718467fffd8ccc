"""From "started" to "over": what operators and triggers share while they wait."""
