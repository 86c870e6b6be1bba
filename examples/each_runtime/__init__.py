"""One workflow on four runtimes: the same tools, services, limits and mishaps, the same record."""
