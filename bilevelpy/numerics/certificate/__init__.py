"""Is y the best answer, is x stationary: found again by means of their own."""
