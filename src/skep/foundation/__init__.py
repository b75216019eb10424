"""What every package stands on: errors, clock, ids, log, settings, paths, rpc."""
