"""The gateway: dials a connector, carries events in and answers out. No database, no people, no decisions.

Source: relay contract; control protocol, sections 4, 6.2 and 7. Imports only `wire` and `foundation`.
"""
