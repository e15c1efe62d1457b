"""cdi_spec as a process, with stand-ins for nvidia-ctk and systemctl on the PATH."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CTK = """\
#!/bin/sh
case "$2" in
    generate) [ -e '{root}/spec' ] || { echo 'failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND' >&2; exit 1; }
        output=${NVIDIA_CTK_CDI_OUTPUT_FILE_PATH:-}
        for argument in "$@"; do case "$argument" in --output=*) output=${argument#--output=} ;; esac; done
        cat '{root}/spec' > "$output" ;;
    list) cat '{root}/listed' ;;
esac
"""
# The service runs nvidia-ctk as the unit does, unless the file "declines" is there.
SYSTEMCTL = """\
#!/bin/sh
echo "$*" >> '{root}/calls'
case "$1" in
    show) cat '{root}/units' ;;
    restart) [ -e '{root}/declines' ] || cp '{root}/spec' '{root}/run/nvidia.yaml' ;;
esac
"""
UNIT = "Id=nvidia-cdi-refresh.{}\nLoadState={}\nActiveState={}\nUnitFileState={}\n"
SPEC = 'cdiVersion: 0.7.0\nkind: nvidia.com/gpu\ndevices:\n    - name: "0"\n    - name: "1"\n'


class Host:
    def __init__(self, root):
        self.root = root
        for folder in ("bin", "etc", "run"):
            (root / folder).mkdir()
        self.program("nvidia-ctk", CTK)
        self.program("systemctl", SYSTEMCTL)
        self.spec(SPEC)
        self.units()
        (root / "environment").write_text(f"# where\nNVIDIA_CTK_CDI_OUTPUT_FILE_PATH={root}/run/nvidia.yaml\n")

    def program(self, name, text):
        path = self.root / "bin" / name
        path.write_text(text.replace("{root}", str(self.root)))
        path.chmod(0o755)

    def spec(self, text, listed="nvidia.com/gpu=0\nnvidia.com/gpu=1\n"):
        (self.root / "spec").write_text(text)
        (self.root / "listed").write_text(listed)

    def units(self, load="loaded", active="active", enabled="enabled"):
        text = "\n".join(UNIT.format(kind, load, active, enabled) for kind in ("service", "path"))
        (self.root / "units").write_text(text)

    @property
    def calls(self):
        path = self.root / "calls"
        return [line for line in path.read_text().splitlines() if not line.startswith("show")] if path.exists() else []

    def run(self, rc=0, check=False, **options):
        arguments = {
            "cdi_dirs": [f"{self.root}/etc", f"{self.root}/run"],
            "environment_file": f"{self.root}/environment",
            "persistent": f"{self.root}/etc/nvidia.yaml",
            "_ansible_check_mode": check,
            **options,
        }
        done = subprocess.run(
            [sys.executable, ROOT / "plugins/modules/cdi_spec.py"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={"PATH": f"{self.root}/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT / "build/collections")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == rc, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_the_unit_writes_what_is_missing_and_then_nothing(host):
    result = host.run()
    assert (result["changed"], result["written_by"], result["path"]) == (True, "unit", f"{host.root}/run/nvidia.yaml")
    assert result["devices"] == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    assert host.run()["changed"] is False
    assert host.calls == ["restart nvidia-cdi-refresh.service"]


def test_a_new_layout_is_noticed_and_another_order_is_not(host):
    host.run()
    host.spec("".join(reversed(SPEC.splitlines(keepends=True)[3:])).join([SPEC[: SPEC.index("    -")], ""]))
    assert host.run()["changed"] is False
    host.spec(SPEC.replace('"1"', '"1:0"'), "nvidia.com/gpu=0 nvidia.com/gpu=1:0")
    result = host.run()
    assert result["changed"] is True
    assert result["devices"] == ["nvidia.com/gpu=0", "nvidia.com/gpu=1:0"]


def test_check_mode_compares_and_writes_nothing(host):
    result = host.run(check=True)
    assert result["changed"] is True
    assert result["diff"]["after"] == SPEC
    assert host.calls == []
    assert not (host.root / "run/nvidia.yaml").exists()


def test_units_are_enabled_without_a_daemon_reload(host):
    host.run()
    host.units(active="inactive", enabled="disabled")
    assert host.run()["changed"] is True
    assert host.calls[1:] == [
        "enable --no-reload nvidia-cdi-refresh.service nvidia-cdi-refresh.path",
        "start nvidia-cdi-refresh.path",
    ]


def test_without_units_the_module_writes(host):
    host.units(load="not-found", active="inactive", enabled="")
    result = host.run()
    assert (result["written_by"], result["path"]) == ("module", f"{host.root}/etc/nvidia.yaml")
    assert (host.root / "etc/nvidia.yaml").read_text().endswith(SPEC)
    assert host.run()["changed"] is False


def test_a_unit_that_declines_is_told_and_replaced(host):
    (host.root / "declines").touch()
    (host.root / "run/nvidia.yaml").write_text(SPEC.replace("0.7.0", "0.5.0"))
    result = host.run()
    assert (result["written_by"], result["path"]) == ("module", f"{host.root}/etc/nvidia.yaml")
    assert "did not write the spec" in str(result["warnings"])
    assert not (host.root / "run/nvidia.yaml").exists()
    assert host.run()["changed"] is False
    # once it works again, its file takes the place of the module's
    (host.root / "declines").unlink()
    host.spec(SPEC.replace("0.7.0", "0.8.0"))
    result = host.run()
    assert (result["written_by"], result["set_aside"]) == ("unit", [])
    assert not (host.root / "etc/nvidia.yaml").exists()


def test_duplicates_are_refused_by_name(host):
    other = host.root / "etc/old.yaml"
    other.write_text('kind: nvidia.com/gpu\ndevices:\n    - name: "1"\n')
    result = host.run(rc=1)
    assert f"{other} declares nvidia.com/gpu=1." in result["msg"]
    assert not (host.root / "run/nvidia.yaml").exists()


def test_duplicates_are_set_aside(host):
    (host.root / "etc/old.yaml").write_text('kind: nvidia.com/gpu\ndevices:\n    - name: "1"\n')
    (host.root / "etc/other.yaml").write_text("kind: example.com/nic\ndevices:\n    - name: nic0\n")
    assert host.run(duplicates="set_aside")["set_aside"] == [f"{host.root}/etc/old.yaml.set-aside"]
    assert sorted(path.name for path in (host.root / "etc").iterdir()) == ["old.yaml.set-aside", "other.yaml"]
    assert host.run()["changed"] is False


def test_the_list_is_read(host):
    host.spec(SPEC, listed="nvidia.com/gpu=0\n")
    assert "declares nvidia.com/gpu=1, and `nvidia-ctk cdi list` does not show it" in host.run(rc=1)["msg"]


def test_a_driver_that_does_not_answer(host):
    (host.root / "spec").unlink()
    result = host.run(rc=1)
    assert "nvidia-ctk generated no CDI spec" in result["msg"]
    assert "ERROR_LIBRARY_NOT_FOUND" in result["msg"]


def test_no_toolkit(host):
    (host.root / "bin/nvidia-ctk").unlink()
    assert host.run(rc=1)["msg"].startswith("The NVIDIA Container Toolkit is not installed")
    assert host.run(check=True)["changed"] is True
