"""Tests of the image checks on small archives, and of the form of compose.yaml and the Dockerfiles."""

import io
import pathlib
import re
import subprocess
import sys
import tarfile
import unittest

sys.dont_write_bytecode = True
SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
REPOSITORY = SCRIPTS.parent
sys.path.insert(0, str(SCRIPTS))

from containers import images  # noqa: E402

SETTINGS = {
    "Config": {
        "User": "10001:10001",
        "Labels": dict.fromkeys(images.LABELS, "x"),
        "Healthcheck": {"Test": ["CMD", "x"]},
        "Env": ["PATH=/bin"],
    }
}


def faults_of(name, content=b"", mode=0o644, kind=tarfile.REGTYPE):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.type = len(content), mode, kind
        archive.addfile(member, io.BytesIO(content))
    packed.seek(0)
    with tarfile.open(fileobj=packed, mode="r|") as archive:
        return [fault for member in archive for fault in images.faults_of_file(archive, member)]


class Files(unittest.TestCase):
    def test_normal_files_are_no_fault(self):
        self.assertEqual(faults_of("usr/local/bin/retriever-server", b"\x7fELF\0", 0o755), [])
        self.assertEqual(faults_of("tmp", mode=0o1777, kind=tarfile.DIRTYPE), [])
        self.assertEqual(faults_of("etc/ssl/certs/ca-certificates.crt", b"-----BEGIN CERTIFICATE-----"), [])
        self.assertEqual(faults_of("bin/sh", mode=0o777, kind=tarfile.SYMTYPE), [])
        # A program that reads keys contains their headline.
        self.assertEqual(faults_of("usr/bin/x", b"\x7fELF\0-----BEGIN PRIVATE KEY-----"), [])

    def test_world_writable_files_are_found(self):
        self.assertIn("everybody", faults_of("srv/a", mode=0o666)[0])
        self.assertIn("everybody", faults_of("srv", mode=0o777, kind=tarfile.DIRTYPE)[0])

    def test_caches_are_found(self):
        for name in (
            "var/cache/apt/archives/gcc_12_amd64.deb",
            "var/cache/apt/pkgcache.bin",
            "var/lib/apt/lists/mirror_debian_dists_bookworm_InRelease",
            "usr/local/cargo/registry/cache/x.crate",
            "root/.cache/pip/http/1",
        ):
            self.assertIn("cache", " ".join(faults_of(name)), name)

    def test_secrets_are_found_by_name_and_by_content(self):
        for name in ("src/.env", "root/.netrc", "src/.git/config", "root/.ssh/id_ed25519", "etc/server.key"):
            self.assertIn("secret", " ".join(faults_of(name)), name)
        for content in (
            b"-----BEGIN RSA PRIVATE KEY-----",
            b"token = hf_" + b"a" * 34,
            b"index-url = https://user:word@mirror.example/simple",
        ):
            self.assertIn("contains", " ".join(faults_of("etc/x.conf", content)), content)


class Settings(unittest.TestCase):
    def faults(self, health_check=True, **changed):
        described = {"Config": {**SETTINGS["Config"], **changed}}
        return " ".join(images.faults_of_settings(described, health_check))

    def test_each_setting_counts(self):
        self.assertEqual(self.faults(), "")
        self.assertIn("runs as root", self.faults(User=""))
        self.assertIn("runs as 0:0", self.faults(User="0:0"))
        self.assertIn("no label", self.faults(Labels={}))
        self.assertIn("health", self.faults(Healthcheck=None))
        self.assertEqual(self.faults(health_check=False, Healthcheck=None), "")
        self.assertIn("API_KEY", self.faults(Env=["API_KEY=abc"]))


class ComposeFile(unittest.TestCase):
    def test_it_passes_on_every_variable_of_both_programs(self):
        compose = (REPOSITORY / "compose.yaml").read_text(encoding="utf-8")
        example = (REPOSITORY / ".env.example").read_text(encoding="utf-8")
        head, programs = example.split("# === retriever-server ===")
        name = re.compile(r"^# ([A-Z][A-Z0-9_]+)=", re.MULTILINE)
        known = set(name.findall(programs))
        passed = re.findall(r"^  ((?:RETRIEVER|TRAINER)_\w+):", compose, re.MULTILINE)
        self.assertGreater(len(known), 60)
        old = {name.replace("_TRAINING_", "_GRPO_") for name in known if name.startswith("TRAINER_TRAINING_")}
        self.assertGreater(len(old), 10)
        self.assertEqual(sorted(passed), sorted(known | old))
        own = set(re.findall(r"\$\{([A-Z_]+)", compose)) - known
        hub = set(re.findall(r"^  (HF_\w+):$", compose, re.MULTILINE))
        self.assertEqual(hub, {"HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"})
        self.assertEqual(own | hub, set(name.findall(head)))
        # The container's root is read-only, so downloads need a volume.
        self.assertRegex(compose, r"(?m)^  HF_HOME: /models/")

    def test_its_lists_of_variables_are_fresh(self):
        checked = subprocess.run(
            [SCRIPTS / "compose-variables", "--check"], capture_output=True, text=True, check=False
        )
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))

    def test_the_dockerfiles_use_no_instruction_of_buildkit(self):
        for path in (REPOSITORY / "docker").glob("*.Dockerfile"):
            text = path.read_text(encoding="utf-8")
            self.assertNotRegex(text, r"RUN --|COPY --(?!from)|ADD --|<<|syntax=", path)


if __name__ == "__main__":
    unittest.main()
