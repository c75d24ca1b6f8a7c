"""Bytes by URL: local files, http(s) and S3, behind one retry loop and one URL guard."""
