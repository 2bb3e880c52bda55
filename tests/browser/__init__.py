"""Tests in a headless Chromium, which `make browser` runs; a package, so that its conftest is not taken for that of tests/."""
