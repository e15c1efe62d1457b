"""The bundle, made on the connected host."""

import subprocess

import attack
import pytest
from conftest import BUILDER, BUNDLE


def test_a_bundle_is_made_and_brought_to_the_control_node(make, said):
    done = make("-vvv")
    said.append(done.output)
    assert done.rc == 0, done.output[-3000:]
    assert done.says(f"{BUNDLE} (", "holds iopaint:cpu-", ", lama. Deploy it with iopaint_image_source=bundle")


def test_a_second_run_changes_nothing(make, checksum):
    done = make()
    assert done.rc == 0, done.output[-3000:]
    assert done.changed(BUILDER) == 0
    assert done.says("as it was", f"iopaint_image_bundle_checksum={checksum}")


def test_it_can_be_used_without_ansible(tmp_path):
    """Tar and sha256sum are enough; docker load takes the folder images (README)."""
    subprocess.run(["tar", "--zstd", "-xf", BUNDLE, "-C", tmp_path], check=True)
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert (tmp_path / "models/torch/hub/checkpoints/big-lama.pt").is_file()
    assert "iopaint-cpu:" in (tmp_path / "docker/compose.yaml").read_text()


def test_it_is_smaller_than_what_is_in_it(builder):
    size = int(builder.check_output("docker image inspect --format '{{.Size}}' iopaint:cpu-latest"))
    assert BUNDLE.stat().st_size < 0.5 * size


@pytest.fixture
def victim(builder):
    """What an attacked host's folder is like; the folder of models is as it was afterwards."""
    attack.prepare(builder)
    builder.check_output(f"cp -a {attack.MODELS} /root/models")
    yield attack.state(builder)
    builder.check_output(f"rm -rf {attack.MODELS} {attack.VICTIM} && mv /root/models {attack.MODELS}")


def test_nothing_is_downloaded_behind_a_link(make, builder, victim):
    """As an instance can put it there that may write to the folder of models."""
    user = "setpriv --reuid 10001 --regid 10001 --clear-groups"
    hub = f"{attack.MODELS}/torch/hub"
    builder.check_output(f"{user} mv {hub}/checkpoints {hub}/aside && {user} ln -s {attack.VICTIM} {hub}/checkpoints")
    done = make()
    assert done.rc != 0
    assert done.says(attack.REFUSED, f"'{hub}/checkpoints'")
    assert attack.state(builder) == victim
    builder.check_output(f"{user} rm {hub}/checkpoints && {user} mv {hub}/aside {hub}/checkpoints")
    builder.check_output(f"{user} ln -sf {attack.VICTIM}/big-lama.pt {hub}/checkpoints/big-lama.pt")
    done = make()
    assert done.rc == 0, done.output[-3000:]
    assert attack.state(builder) == victim
    assert builder.check_output(f"stat -c '%F %u:%g %a' {hub}/checkpoints/big-lama.pt") == "regular file 10001:10001 644"
    assert builder.check_output("ls -A /opt/iopaint/instances") == "models.json"  # the record; no download is left
