"""From "nobody watches" to "each end is told": what ends in Planasonix, for assets and whoever waits for them."""
