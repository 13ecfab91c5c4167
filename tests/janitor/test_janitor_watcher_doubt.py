"""Where events would not tell all, watching is doubted: by the mount, by the system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from filesession.janitor import watcher as watcher_module
from filesession.janitor.watcher import EventsUnavailable, doubt
from tests.janitor.watching import StartWatch
from tests.waiting import PATIENCE

MOUNTS = r"""21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:31 / /srv rw - nfs4 server:/srv rw
23 22 0:32 / /srv/local\040disk rw shared:2 master:3 - xfs /dev/sdb1 rw
24 21 0:33 / /host rw - 9p host rw
25 21 0:34 / /twice rw - tmpfs tmpfs rw
26 21 0:35 / /twice rw - fuse.sshfs me@there: rw
27 21 0:36 / /odd\134name rw - virtiofs shared rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib/sessions", None),
        ("/srv", "nfs4"),
        ("/srv/sessions", "nfs4"),
        ("/srvother", None),
        ("/srv/local disk/sessions", None),
        ("/srv/local", "nfs4"),
        ("/host/a/b", "9p"),
        ("/twice/a", "fuse.sshfs"),
        ("/odd\\name/a", "virtiofs"),
        ("/", None),
    ],
)
def test_a_file_system_that_others_change_is_doubted_by_its_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, kind: str | None
) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr(watcher_module, "_MOUNTS", str(tmp_path / "mountinfo"))
    said = doubt(directory)
    assert said == (
        kind and f"it lies on {kind}, where changes made elsewhere raise no events here"
    )


@pytest.mark.parametrize("content", [None, "", "21 1 8:1\n"])
def test_mounts_that_cannot_be_read_are_a_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "mountinfo").write_text(content)
    monkeypatch.setattr(watcher_module, "_MOUNTS", str(tmp_path / "mountinfo"))
    assert "file system is not known" in (doubt("/srv") or "")


def test_a_system_without_inotify_is_a_doubt_and_starts_nothing(
    root: Path, watch: StartWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert doubt(str(root)) == "darwin has no inotify"
    with pytest.raises(EventsUnavailable, match="no inotify"):
        watch(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_real_mount_is_found_behind_a_link_and_with_a_space_in_its_name(root: Path) -> None:
    mounted = root / "a b"
    mounted.mkdir()
    (root / "link").symlink_to(mounted)
    code = (
        "import sys; from filesession.janitor import watcher;"
        "watcher._REMOTE = {'ramfs'}; print(*map(watcher.doubt, sys.argv[1:]))"
    )
    script = 'mount -t ramfs ramfs "$1" && exec "$2" -c "$3" "$4" "$5"'
    run = subprocess.run(
        [
            *("unshare", "-m", "sh", "-c", script, "sh", str(mounted)),
            *(sys.executable, code, str(root / "link/sessions"), str(root)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert run.returncode == 0, run.stderr
    assert "it lies on ramfs" in run.stdout
    assert run.stdout.endswith(" None\n")
