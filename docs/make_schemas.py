"""Write docs/schema/ from the classes that qzoo prints and keeps: `python docs/make_schemas.py`."""

from __future__ import annotations

from pathlib import Path

from qzoo.cli.schemas import BESIDE, FILES, OBJECTS, file_name, schema

FOLDER = Path(__file__).with_name("schema")

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for known in FOLDER.glob("*.schema.json"):
        known.unlink()
    for name in (*OBJECTS, *FILES, *BESIDE):
        (FOLDER / file_name(name)).write_bytes(schema(name))
