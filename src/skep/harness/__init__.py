"""One process per agent: leases lanes from the daemon and runs turns with the agent's runtime."""
