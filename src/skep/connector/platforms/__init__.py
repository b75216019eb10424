"""One package per chat platform; none imports another."""
