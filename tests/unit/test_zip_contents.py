from __future__ import annotations

import hashlib
import json

from services.packager.zipstream import ManifestImage, entry_names, manifest


def test_entry_names_follow_the_content_types() -> None:
    types = ["image/png", "image/jpeg", "IMAGE/WEBP", "image/new", "image/png"]
    names = ["image-1.png", "image-2.jpg", "image-3.webp", "image-4.bin", "image-5.png"]
    assert entry_names(types) == names
    assert entry_names(["image/png"], prefix="7/variant") == ["7/variant-1.png"]
    assert entry_names([]) == []


def test_manifest_is_small_sorted_and_repeatable() -> None:
    sha256 = hashlib.sha256(b"x").hexdigest()
    images = [
        ManifestImage(1, "image-1.png", 2**53 + 1, 640, 480, sha256, "image/png"),
        ManifestImage(2, "image-2.jpg", 8, 1024, 1024, sha256, "image/jpeg"),
    ]
    made = manifest({"job_id": "42"}, images)
    assert made == manifest({"job_id": "42"}, list(images))
    told = json.loads(made)
    assert told["job_id"] == "42"
    assert told["images"][0] == {
        "index": 1,
        "file_name": "image-1.png",
        "file_id": "9007199254740993",
        "width": 640,
        "height": 480,
        "sha256": sha256,
        "content_type": "image/png",
    }
    assert made.endswith(b"\n")
    assert len(made) < 250 * len(images)
    keys = list(told["images"][1])
    assert keys == sorted(keys)
