"""What the field's papers and tables claim, measured with the backends."""
