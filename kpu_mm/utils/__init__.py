"""What has no better place."""
