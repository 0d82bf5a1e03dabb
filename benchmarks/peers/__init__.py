"""This package beside its peers: the same works, each contender set up as its own manual says."""
