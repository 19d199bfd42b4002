"""Rows of files: how files hold them, which fields they have, and what is written for them.

1. `files`: the rows of a file, whatever its format.
2. `forms`: the texts in a row's fields, whatever their names. Every command that reads rows goes
   through these two.
3. `reading`: a row to score, or what is wrong with it.
4. `writing`: a row's output line.
"""

from flipfast.rows.files import open_rows
from flipfast.rows.reading import InputRow, read_row, row_of
from flipfast.rows.writing import RESERVED, carried, encode, score_rows, scored_fields

__all__ = [
    "RESERVED",
    "InputRow",
    "carried",
    "encode",
    "open_rows",
    "read_row",
    "row_of",
    "score_rows",
    "scored_fields",
]
