"""One file per group of endpoints; each endpoint parses, calls and returns."""
