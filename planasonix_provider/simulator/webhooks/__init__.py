"""The webhooks of the simulator: subscriptions, deliveries, and the thread that sends them."""
