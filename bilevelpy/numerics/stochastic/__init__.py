"""What methods on batches share: averages, variance reduction, step lengths."""
