"""The imaging room: what an image file must be before assets stores it.

Pure synchronous functions on buffers, safe to run side by side in threads: no global setting of
any library is changed. Call them in a bounded executor; the header is judged before any pixel is
decoded, so memory follows `Limits` and never what a file claims about itself.

What it cannot see: bytes that decoders skip inside coded image data, behind the last block of a
JPEG scan or of a WebP bitstream. Only encoding again would remove them, and would cost quality;
so stored images are served with their own type and `nosniff`, and none is a zip archive as well.
"""

from services.assets.imaging.inspection import Inspected, inspect_image
from services.assets.imaging.limits import GENERATED_LIMITS, UPLOAD_LIMITS, Limits
from services.assets.imaging.parts import Digest, Part, digest_of
from services.assets.imaging.provenance import provenance_xmp
from services.assets.imaging.sniffing import JPEG, PNG, WEBP
from services.assets.imaging.xmp import with_xmp

__all__ = [
    "GENERATED_LIMITS",
    "JPEG",
    "PNG",
    "UPLOAD_LIMITS",
    "WEBP",
    "Digest",
    "Inspected",
    "Limits",
    "Part",
    "digest_of",
    "inspect_image",
    "provenance_xmp",
    "with_xmp",
]
