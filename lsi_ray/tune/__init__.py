"""`lsi tune`: engine arguments chosen by measurement, on a sample of the user's own archive."""
