"""What of a picture's EXIF holds of what is made of it, too."""

from PIL import ExifTags, Image, TiffTags
from PIL.ExifTags import IFD, Base

#: Of the picture as a whole, and beside its settings: how its samples are stored, sized and coloured,
#: what is a copy of them, and what makers count from places in the file.
OF_THE_SAMPLES = {
    *range(0x00FE, 0x010D),  # its sides, bits, compression and photometric
    *(0x0111, *range(0x0115, 0x011A), *range(0x011C, 0x0126), 0x012D),  # strips, transfer function
    *(0x013D, 0x013E, 0x013F, *range(0x0140, 0x0160)),  # predictor, primaries, palette, tiles
    *range(0x0200, 0x0215),  # JPEG within TIFF, its thumbnail's place, YCbCr
    *(0x02BC, 0x83BB, 0x8649, 0x935C),  # XMP, IPTC, Photoshop's resources and layers
    Base.InterColorProfile,
    Base.MakerNote,
    *(0xEA1C, 0xEA1D),  # Microsoft's padding, and how far it has moved the maker note
    *(Base.ColorSpace, IFD.Interop, Base.ExifImageWidth, Base.ExifImageHeight),
    *(0x9214, Base.SubjectLocation),  # the subject's area and place, in px
    *(Base.FocalPlaneXResolution, Base.FocalPlaneYResolution, Base.FocalPlaneResolutionUnit),
    *(Base.CompressedBitsPerPixel, Base.ComponentsConfiguration),
}
#: Tags of type UNDEFINED (EXIF 2.32, 4.6) that Pillow does not know, and would write as bytes.
UNDEFINED = (Base.UserComment, Base.FileSource, Base.SceneType, Base.CFAPattern, Base.OECF)
for _tag in UNDEFINED:
    TiffTags.TAGS_V2_GROUPS[IFD.Exif].setdefault(
        _tag, TiffTags.TagInfo(_tag, ExifTags.TAGS[_tag], TiffTags.UNDEFINED)
    )


def of_the_result(exif: Image.Exif) -> bytes | None:
    """`exif` of a picture that is translated: upright, and without thumbnail and maker note.

    None where nothing is left. May raise whatever damaged EXIF leads to.
    """
    kept = Image.Exif()
    kept.endian = ">"  # the order in which web UIs read a UserComment
    for tag, value in exif.items():
        if tag in (IFD.Exif, IFD.GPSInfo):
            value = {name: of for name, of in exif.get_ifd(tag).items() if name not in OF_THE_SAMPLES}
        if tag not in OF_THE_SAMPLES:
            kept[tag] = value
    if Base.Orientation in kept:
        kept[Base.Orientation] = 1
    return kept.tobytes() if kept else None


def with_comment(exif: bytes | None, comment: bytes | None) -> bytes:
    """`exif`, or new one, with a UserComment, its eight bytes of encoding included; None for none."""
    changed = Image.Exif()
    if exif:
        changed.load(exif)
    of_the_picture = changed.get_ifd(IFD.Exif) if IFD.Exif in changed else {}
    of_the_picture = {tag: value for tag, value in of_the_picture.items() if tag != Base.UserComment}
    if comment is not None:
        of_the_picture[Base.UserComment] = comment
    if of_the_picture:
        changed[IFD.Exif] = of_the_picture
    return changed.tobytes()
