"""What a generated image says about itself: IPTC's word for its source, and where it is from."""

from __future__ import annotations

import html
import re

_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_SOURCE_TYPE_NAME = re.compile(r"[A-Za-z]{1,64}")
# What XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Of the prompt, escaped, in UTF-8: the whole packet must fit into one JPEG segment.
_MAX_PROMPT_BYTES = 48_000

_PACKET = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    Iptc4xmpExt:DigitalSourceType="{source_type}"
    xmp:CreatorTool="{creator_tool}">{prompt}
   <dc:identifier>{identifier}</dc:identifier>
   <dc:description>
    <rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt>
   </dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""

_PROMPT = """
   <Iptc4xmpExt:AIPromptInformation>{prompt}</Iptc4xmpExt:AIPromptInformation>"""


def provenance_xmp(
    *,
    digital_source_type: str = "trainedAlgorithmicMedia",
    creator_tool: str,
    preview: bool,
    job_id: int,
    image_index: int,
    prompt: str = "",
) -> bytes:
    """The XMP packet of one generated image.

    Args:
        digital_source_type: a name from IPTC's Digital Source Type vocabulary.
        creator_tool: what made the image, as a person should read it.
        preview: whether it only stands in for the real thing; then it says so in words.
        job_id: the job it belongs to.
        image_index: which of the job's images it is, from 1.
        prompt: as IPTC's AI Prompt Information, its beginning where it is very long; empty: the
            packet says nothing of it.

    Raises:
        ValueError: the source type is not a name.
    """
    if not _SOURCE_TYPE_NAME.fullmatch(digital_source_type):
        raise ValueError("a digital source type is a name of letters")
    what = "Preview, not a final image: image" if preview else "Generated image: image"
    packet = _PACKET.format(
        source_type=_SOURCE_TYPES + digital_source_type,
        creator_tool=_escaped(creator_tool),
        prompt=_PROMPT.format(prompt=_beginning(_escaped(prompt))) if prompt else "",
        identifier=f"job-{job_id}/image-{image_index}",
        description=f"{what} {image_index} of job {job_id}.",
    )
    return packet.encode()


def _escaped(text: str) -> str:
    return html.escape(_NOT_XML.sub("", text))


def _beginning(escaped: str) -> str:
    """What fits; a character or an escape that would be cut in two is left out."""
    if len(escaped.encode()) <= _MAX_PROMPT_BYTES:
        return escaped
    cut = escaped.encode()[:_MAX_PROMPT_BYTES].decode(errors="ignore")
    return re.sub(r"&[^;]*\Z", "", cut)
