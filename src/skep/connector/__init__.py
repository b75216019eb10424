"""The edge: verifies, stores, routes and delivers; knows tenants and accounts, never people."""
