"""Decodes one file of each kind, so that the libraries import and open all that they do at their first use."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

from PIL import Image

from lsi_ray.media.image import decode_image
from lsi_ray.media.sampling import uniform
from lsi_ray.media.sniff import IMAGE_FORMATS
from lsi_ray.media.video import decode_video

# Two black frames of 16x16, VP8 in WebM (464 bytes; FFmpeg with -fflags bitexact), compressed.
_VIDEO = (
    "c-oV4y}x+AQ(GgW({~{L)X3uWxsk)EsiizMDc7mJk;$pGkx3%BA)S!{1Q-_x`pz!d<-5B(cy)`Y=gPF;HH`})Jh6~<*+AYg-`zbxo>0i"
    ")^x!p3jGPdzOz`e(5Vz|M#2ki523i4-s}^Wo-`LFW<lx)T;*(gG7VZe9Tsk`(<~x8DfgHPU9n>wR*Bcp&k9I)yGtOybP}(}Dxil}Oqmi"
    "MlH7q_Xz@oX4QTcImi}kEi3=i5iGz#o$6ae{fYjN?W<OAKw2+ipy7P>C(a0v}^4Ds~$b7`M!U|<D8MtTM?z##9ut@P0IMux?U8yOfH1e"
    "h4+GHMAh2rw|XbF{X0%xvjkVq)OoO<?%<e|12^;u($1FBmp5GO!A)VUS=ju>ZmXwCCTqoeZEbow&Pyb0fp{E@0e!Y+`i&(8vq`_AG?="
)


def warm_up() -> None:
    picture = Image.new("RGB", (8, 8))
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned
    for name in (*IMAGE_FORMATS, "MPO"):  # MPO: what Pillow makes of a JPEG with several pictures
        buffer = io.BytesIO()
        more: dict[str, Any] = {} if name == "JPEG" else {"save_all": True, "append_images": [picture]}
        picture.save(buffer, name, exif=exif, **more)
        decode_image(buffer.getvalue())
    decode_video(zlib.decompress(base64.b85decode(_VIDEO)), uniform(2))
