"""From the IR to functions of two flat vectors: graphs, layout, oracle."""
