"""A store in a table of LanceDB, for more rows than fit in memory; it needs `pip install "slq[lance]"`.

    rows.lance/          the table: each write makes a version of it, and nothing is changed in place
    journal.sqlite       which versions count, sizes and checksums of their files, what the vectors are
    lock                 held by the process that writes

LanceDB brings nothing to the disk itself. A write lets it make a version, waits until the disk has its files, and then notes it in the
journal: what the journal does not name was never acknowledged and does not count. LanceDB alone may show such a version; `LanceStore` does
not, and removes it before the next write.
"""

from slq.index.lance.store import EXACT_ROWS, LanceStore

__all__ = ["EXACT_ROWS", "LanceStore"]
