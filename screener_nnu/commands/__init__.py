"""One small file a command: parse, call, report."""
