"""The heart: envelopes, lanes, leases, asks, reminders, limits and rights. Pure logic over the store."""
