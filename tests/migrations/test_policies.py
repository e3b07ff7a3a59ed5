"""`policies build`: what changes in policies/ becomes a migration, and its way back is the way it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rowhouse import migrations, policies

from ..conftest import ROOT, Database


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the policies and migrations."""
    for name in ("policies", "supabase/migrations", "supabase/rollbacks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("change", ["renamed", "changed", "deleted"])
def test_a_file_that_is_renamed_changed_or_deleted_goes_there_and_back(
    database: Database, project: Path, change: str
) -> None:
    file, folder = project / "policies" / "tasks.sql", project / "supabase" / "migrations"
    text = file.read_text()
    last = migrations.on_disk(folder)[-1].version
    assert policies.build(project) is None
    if change == "renamed":
        file.rename(file.with_name("a_tasks.sql"))
    elif change == "changed":
        file.write_text(text.replace("tasks.delete", "tasks.update").replace("grant select, delete", "grant select"))
    else:
        file.unlink()
    assert policies.build(project) is not None
    with database.connect(autocommit=True) as connection:
        migrations.migrate(connection, folder=folder)
        assert policies.check(connection, project) == []
        migrations.rollback(connection, target=last, folder=folder)
        (project / "policies" / "a_tasks.sql").unlink(missing_ok=True)
        file.write_text(text)
        assert policies.check(connection, project) == []
