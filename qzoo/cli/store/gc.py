"""qzoo store gc."""

from __future__ import annotations

from dataclasses import dataclass

import click

from qzoo.cli.options import as_json
from qzoo.store import GcReport


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheState:
    """Downloads and decoded images: where, their bytes before the call, and whether it removes them."""

    path: str
    size_bytes: int
    removed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GcObject:
    """`qzoo store gc --json`. With `dry_run`, what would be removed."""

    dry_run: bool
    removed: GcReport
    cache: CacheState


@click.command()
@click.option("--cache", is_flag=True, help="Also remove downloaded weights and datasets, and decoded images.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and stop.")
@as_json
def command(cache: bool, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001 - click's flags
    """Remove what nothing names any more: replaced and forgotten engines, and what killed processes left.

    Waits for builds that are just being stored, and leaves what is whole in the cache alone unless --cache is given;
    don't give it while a build downloads.

    \b
    Examples:
      qzoo store gc
      qzoo store gc --cache --dry-run
    """
    from qzoo.store import Store

    store = Store.default()
    report, cached = store.gc(dry_run=dry_run), store.cache_bytes()
    if cache and not dry_run:
        store.empty_cache()
    state = CacheState(path=str(store.cache), size_bytes=cached, removed=cache)
    found = GcObject(dry_run=dry_run, removed=report, cache=state)
    if as_json:
        from qzoo.records import encode

        click.echo(encode(found), nl=False)
        return
    click.echo("\n".join(_lines(found)))


def _lines(found: GcObject) -> list[str]:
    from qzoo.report.text import MB

    did, freed = ("would remove", "would free") if found.dry_run else ("removed", "freed")
    gone, cache = found.removed, found.cache
    size = f"{cache.size_bytes / MB:.3f} MB in {cache.path}"
    return [
        f"{did}  bundles {gone.bundles}, blobs {gone.blobs}, left-over temporaries {gone.temporaries}",
        f"{freed}  {gone.freed_bytes / MB:.3f} MB",
        f"{did}  the cache, {size}" if cache.removed else f"the cache stays, {size}; --cache removes it too",
    ]
