"""The bundle, made on the connected host."""

import subprocess

from conftest import BUILDER, BUNDLE


def test_a_bundle_is_made_and_brought_to_the_control_node(make, said):
    done = make("-vvv")
    said.append(done.output)
    assert done.rc == 0, done.output[-3000:]
    assert done.says(f"{BUNDLE} (", "holds iopaint:cpu-", ", lama. Deploy it with iopaint_image_source=bundle")


def test_a_second_run_changes_nothing(make):
    done = make()
    assert done.rc == 0, done.output[-3000:]
    assert done.changed(BUILDER) == 0
    assert done.says("as it was")


def test_it_can_be_used_without_ansible(tmp_path):
    """Tar and sha256sum are enough; docker load takes the folder images (README)."""
    subprocess.run(["tar", "--zstd", "-xf", BUNDLE, "-C", tmp_path], check=True)
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert (tmp_path / "models/torch/hub/checkpoints/big-lama.pt").is_file()
    assert "iopaint-cpu:" in (tmp_path / "docker/compose.yaml").read_text()


def test_it_is_smaller_than_what_is_in_it(builder):
    size = int(builder.check_output("docker image inspect --format '{{.Size}}' iopaint:cpu-latest"))
    assert BUNDLE.stat().st_size < 0.5 * size
