"""Methods that differentiate the steps of a lower solver."""
