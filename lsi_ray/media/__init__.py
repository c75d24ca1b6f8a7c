"""Bytes of images and videos in, RGB frames out; hostile bytes end in a RowError and nothing else."""
