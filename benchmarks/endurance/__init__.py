"""What has to hold with millions of jobs and for hours (python -m benchmarks.endurance)."""
