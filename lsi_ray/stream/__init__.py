"""The Ray Data execution that serves all batches of one model: source -> render -> generate -> commit."""
