"""The door: what comes in from people."""
