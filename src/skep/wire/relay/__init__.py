"""The relay wire between a connector and a gateway, compatible with Hermes 0.19.0.

Source: relay contract. Import from the modules: `frames`, `event`, `actions`, `descriptor`,
`session_key`, `team`, `token`, `urls`, `length`. Pure: no I/O, no clock.
"""
