"""What points and matrices show, by numbers."""
