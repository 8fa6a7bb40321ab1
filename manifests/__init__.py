"""What people apply to a cluster, and what writes the part of it that is generated."""
