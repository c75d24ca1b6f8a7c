"""What an archive may cost at most. Every limit is enforced on bytes that were read or produced, not on promises."""

from __future__ import annotations

from dataclasses import dataclass

GB = 1000**3


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    input_bytes: int = 5 * GB
    """The file as given, `.tar` or `.tar.gz`."""
    tar_bytes: int = 20 * GB
    """The plain tar after decompression."""
    gzip_ratio: int = 200
    """Plain bytes per compressed byte. Deflate ends at 1032; JSON and media stay well below 100."""
    gzip_ratio_from: int = 10_000_000
    """Plain bytes from which the ratio counts: small archives of zeros do no harm."""
    gzip_members: int = 16
    """Gzip streams in one file. `cat a.gz b.gz` makes two; thousands are only made to slow a reader down."""
    members: int = 200_000
    """Entries of the tar: files and folders."""
    member_bytes: int = 2 * GB
    """One regular file."""
    jobs_bytes: int = 1 * GB
    """jobs.jsonl."""
    name_bytes: int = 512
    """One name in UTF-8, NFC-normalised."""
    names_bytes: int = 20_000_000
    """All names together: 100 bytes for each of 200,000. With names of 500 bytes the index would take 160 MB."""
    pax_bytes: int = 64 * 1024
    """One pax header or GNU long name."""
    pax_records: int = 128
    """Records in one pax header. bsdtar on macOS writes about ten."""
    pax_globals: int = 64
    """Global pax headers. `git archive` writes one."""


DEFAULT_LIMITS = ArchiveLimits()
