"""The checks as pytest tests, for a plugin's own test suite. The only file of the kit that imports pytest."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from qzoo.errors import UsageError
from qzoo.registry import Registry
from qzoo.testing.evidence import ModelReport
from qzoo.testing.run import CHECKS, check_plugin
from qzoo.testing.subject import subjects_in, subjects_named


class PluginContract:
    """A class whose name begins with Test and that derives from this one has a test of each check.

    Set `directory`, the plugin's folder, or `plugin`, the name of an installed plugin or of one model; and `targets`,
    names of runtimes, where not all that work here are to be checked. Each check covers all models; one that doesn't
    apply to any is skipped by name.
    """

    directory: ClassVar[Path | None] = None
    plugin: ClassVar[str | None] = None
    targets: ClassVar[tuple[str, ...]] = ()

    @pytest.fixture(scope="class")
    @classmethod
    def reports(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelReport, ...]:
        """The report on each model, made once for the class."""
        cache = tmp_path_factory.mktemp("qzoo-cache")
        if (cls.directory is None) == (cls.plugin is None):
            raise UsageError(f"{cls.__name__}: set exactly one of directory and plugin")
        if cls.directory is not None:
            return check_plugin(subjects_in(cls.directory, cache, cls.targets)).models
        return check_plugin(subjects_named(str(cls.plugin), Registry.load(), cache, cls.targets)).models

    @pytest.mark.parametrize("check", [check.name for check in CHECKS])
    def test_check(self, reports: tuple[ModelReport, ...], check: str) -> None:
        """The check's finding on each model."""
        found = [(report.model, one) for report in reports for one in report.findings if one.check == check]
        wrong = [
            f"{model}: {one.evidence} ({one.where})" for model, one in found if one.status in ("failed", "blocked")
        ]
        if wrong:
            pytest.fail("\n".join(wrong), pytrace=False)
        if all(one.status == "skipped" for _, one in found):
            pytest.skip("; ".join(f"{model}: {one.evidence}" for model, one in found))
