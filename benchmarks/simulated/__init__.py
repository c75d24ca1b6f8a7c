"""Models of the engine and of the stream, for questions about order that need no engine."""
