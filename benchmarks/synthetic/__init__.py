"""Synthetic text, images and clips: seeded, made on the spot, nothing downloaded."""
