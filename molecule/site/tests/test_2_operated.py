"""The operator's day at such a site: every playbook does its work by that connection."""

import json
import re
import shutil

import pytest
from conftest import CONTAINER, FOLDER, NAME, play
from play import ROOT, deployed

OUTPUTS = "/var/lib/iopaint/outputs/cpu"
READABLE = r"-perm -o+r \( -not -type d -o -perm -o+x \) -not -perm /go+w"


def proven(run):
    """Check that the play ended with a real inpainting."""
    assert run.rc == 0, run.output
    assert run.says("http://127.0.0.1:8080 inpaints with cv2", "pixels under the mask changed, 0 elsewhere"), run.output
    return True


def is_clean(host):
    """Check that the container has nothing of the site's proxies, and the image nothing of its umask."""
    environment = json.loads(host.check_output(f"docker inspect --format '{{{{json .Config.Env}}}}' {CONTAINER}"))
    assert [entry for entry in environment if re.match("(?i)(https?|ftp|all)_proxy=.", entry)] == []
    image = host.check_output(f"docker inspect --format '{{{{.Image}}}}' {CONTAINER}")
    assert "127.0.0.1:9" not in host.check_output(f"docker image inspect {image}; docker history --no-trunc {image}")
    unreadable = f"docker exec {CONTAINER} find /opt/iopaint /usr/share/iopaint-fleet /app -not -readable"
    assert host.check_output(unreadable) == ""
    return True


def test_deployed(host, api):
    assert api("/api/v1/model")["name"] == "cv2"
    health = host.check_output(f"docker inspect --format '{{{{.State.Health.Status}}}}' {CONTAINER}")
    assert health == "healthy"
    assert is_clean(host)


def test_the_recipe_has_the_modes_of_the_collection_and_not_of_the_umask(host):
    folder = "/opt/iopaint/image/docker"
    assert host.file(f"{folder}/Dockerfile").exists
    assert host.check_output(rf"find {folder} -not -type l -not \( {READABLE} \) -printf '%m %p\n'") == ""
    assert host.check_output(f"stat -c %a {folder}/Dockerfile {folder}/image/entrypoint") == "644\n755"


def test_secrets_and_records_keep_their_modes(host):
    current = "/opt/iopaint/instances/cpu/current"
    assert host.file(f"{current}/options.env").mode == 0o600
    assert host.check_output(f"find {current}/ /opt/iopaint/instances -not -user root -printf '%u %p\n'") == ""


def test_check_mode(host):
    before = deployed(host)
    run = play("deploy.yml", "--check", "--diff", "-vvv")
    assert run.rc == 0, run.output
    assert run.changed(NAME) == 0, run.output
    run = play("playbooks/upgrade.yml", "--check", "--diff", iopaint_image_ref="v1.6.1-test")
    assert run.rc == 0, run.output
    assert deployed(host) == before


def test_status(host, tmp_path):
    run = play("playbooks/status.yml", iopaint_status_dir=str(tmp_path / "report"))
    assert run.rc == 0, run.output
    assert run.changed(NAME) == 0, run.output
    row = re.search(rf"^ +{NAME} +cpu +cpu +(\S+) .*healthy.*$", run.output, re.MULTILINE)
    assert row, run.output
    (file,) = (tmp_path / "report").glob("*.json")
    document = json.loads(file.read_text())
    counts = {"hosts": 1, "unseen": 0, "instances": 1, "serving": 1, "broken": 0}
    assert document["summary"] == {**counts, "gateways": 0, "gateways_serving": 0}
    assert [found["host"] for found in document["hosts"]] == [NAME]


def test_upgrade(host, version):
    run = play("playbooks/upgrade.yml", iopaint_image_ref="v1.6.1-test")
    assert proven(run)
    assert version() == "1.6.1"
    assert is_clean(host)


def test_rollback(host, version):
    run = play("playbooks/rollback.yml")
    assert proven(run)
    assert version() != "1.6.1"
    assert is_clean(host)


def test_a_lost_picture_is_restored(host):
    write = "cd /app/outputs && mkdir -p a && echo picture > kept.png && echo 2 > a/b.png"
    host.check_output(f"docker exec {CONTAINER} sh -c '{write}'")
    sums = f"cd {OUTPUTS} && find . -type f -exec sha256sum {{}} + | sort -k2; stat -c '%u:%g %a' . kept.png"
    before = host.check_output(sums)
    models = host.check_output("cd /var/lib/iopaint/models/ && find . -type f -exec sha256sum {} + | sort -k2")
    run = play("playbooks/backup.yml")
    assert run.rc == 0, run.output
    assert host.check_output("stat -c '%a %U' /var/backups/iopaint") == "700 iopaint-backup"
    assert (FOLDER / "backup.key").stat().st_mode & 0o777 == 0o600
    assert (FOLDER / "backup.key").read_text().strip() not in run.output
    host.check_output(f"rm -r {OUTPUTS}/kept.png {OUTPUTS}/a")
    run = play("playbooks/restore.yml")
    assert proven(run)
    assert host.check_output(sums) == before
    assert host.check_output("cd /var/lib/iopaint/models/ && find . -type f -exec sha256sum {} + | sort -k2") == models
    assert host.check_output(f"docker exec {CONTAINER} cat /app/outputs/kept.png") == "picture"


def test_the_data_folder_stays_the_link_that_it_is(host):
    if not host.file("/srv/data/iopaint").exists:
        pytest.skip("site_data_link is off")
    assert host.check_output("readlink /var/lib/iopaint") == "/srv/data/iopaint"
    assert host.file("/srv/data/iopaint/outputs/cpu/kept.png").exists


@pytest.fixture
def tree(tmp_path):
    """A working tree with an edit, in files that only their owner may read, as a strict umask leaves them."""
    source = tmp_path / "IOPaint"
    shutil.copytree(ROOT / "build/fixtures/git/iopaint", source)
    edited = {"iopaint/cli.py": ('version="1.6.1"', 'version="1.6.1+site"'), "web_app/index.html": ("1.6.1<", "1.6.1+site<")}
    for name, (old, new) in edited.items():
        text = (source / name).read_text()
        assert old in text
        (source / name).write_text(text.replace(old, new))
        (source / name).chmod(0o600)
    (source / "iopaint").chmod(0o700)
    return source


def test_an_edit_of_a_working_tree_is_deployed(host, tree, version):
    options = {"iopaint_image_source": "directory", "iopaint_image_directory": str(tree)}
    run = play("deploy.yml", **options)
    assert proven(run)
    assert version() == "1.6.1+site"
    assert "test page 1.6.1+site" in host.check_output("curl -sS --fail -m 60 http://127.0.0.1:8080/")
    assert is_clean(host)
    again = play("deploy.yml", **options)
    assert (again.rc, again.changed(NAME)) == (0, 0), again.output


def test_a_release_is_deployed(host):
    run = play("deploy.yml", iopaint_image_source="release")
    assert proven(run)
    assert "<title>IOPaint</title>" in host.check_output("curl -sS --fail -m 60 http://127.0.0.1:8080/")
    assert is_clean(host)


def test_remove(host):
    before = host.check_output("cd /var/lib/iopaint/ && find . -type f | sort | xargs -r sha256sum")
    run = play("playbooks/remove.yml")
    assert run.rc == 0, run.output
    assert deployed(host) == {}
    assert not host.file("/opt/iopaint").exists
    assert host.check_output("cd /var/lib/iopaint/ && find . -type f | sort | xargs -r sha256sum") == before
