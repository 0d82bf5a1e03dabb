"""pyramid_durable itself."""
