"""What the package costs and how fast it is, measured on real processes; never run as tests."""
