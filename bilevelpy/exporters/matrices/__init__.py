"""Files of rows and columns: LP, MPS, MPS with AUX."""
