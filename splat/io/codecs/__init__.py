"""Every codec of ``.spack`` attributes by name."""

from __future__ import annotations

from splat.io.codecs.codebook import Codebook
from splat.io.codecs.codec import Codec
from splat.io.codecs.field import Field
from splat.io.codecs.half import Half
from splat.io.codecs.log16 import Log16
from splat.io.codecs.palette import Palette
from splat.io.codecs.residual import Residual
from splat.io.codecs.smallest3 import Smallest3
from splat.io.codecs.uniform import Uniform

CODECS: dict[str, type[Codec]] = {
    cls.kind: cls for cls in (Uniform, Half, Log16, Codebook, Palette, Smallest3, Residual, Field)
}
"""Kind -> frozen dataclass of the settings for encoding; decoding needs none."""
