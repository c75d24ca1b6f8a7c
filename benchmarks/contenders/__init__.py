"""One small script for each contender, run in a fresh process: reads a Task, answers the rows, says when it did."""
