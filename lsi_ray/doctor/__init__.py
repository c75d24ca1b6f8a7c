"""`lsi doctor`: what on this machine would keep batches from running, each with what to do about it."""
