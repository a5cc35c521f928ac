"""What is said of an answer: its proof, its ties and prices, or why there is none."""
